package mysql

import "fmt"

// Command is a command's first byte.
type Command byte

// The commands.
const (
	Quit            Command = 0x01
	InitDB          Command = 0x02
	Query           Command = 0x03
	FieldList       Command = 0x04
	CreateDB        Command = 0x05
	DropDB          Command = 0x06
	Refresh         Command = 0x07
	Shutdown        Command = 0x08
	Statistics      Command = 0x09
	ProcessInfo     Command = 0x0a
	ProcessKill     Command = 0x0c
	Debug           Command = 0x0d
	Ping            Command = 0x0e
	ChangeUser      Command = 0x11
	BinlogDump      Command = 0x12
	TableDump       Command = 0x13
	RegisterReplica Command = 0x15
	StmtPrepare     Command = 0x16
	StmtExecute     Command = 0x17
	StmtLongData    Command = 0x18
	StmtClose       Command = 0x19
	StmtReset       Command = 0x1a
	SetOption       Command = 0x1b
	StmtFetch       Command = 0x1c
	BinlogDumpGTID  Command = 0x1e
	ResetConnection Command = 0x1f
	StmtBulkExecute Command = 0xfa
)

var commandNames = map[Command]string{Quit: "QUIT", InitDB: "INIT_DB", Query: "QUERY", FieldList: "FIELD_LIST",
	CreateDB: "CREATE_DB", DropDB: "DROP_DB", Refresh: "REFRESH", Shutdown: "SHUTDOWN", Statistics: "STATISTICS",
	ProcessInfo: "PROCESS_INFO", ProcessKill: "PROCESS_KILL", Debug: "DEBUG", Ping: "PING", ChangeUser: "CHANGE_USER",
	BinlogDump: "BINLOG_DUMP", TableDump: "TABLE_DUMP", RegisterReplica: "REGISTER_SLAVE", StmtPrepare: "STMT_PREPARE",
	StmtExecute: "STMT_EXECUTE", StmtLongData: "STMT_SEND_LONG_DATA", StmtClose: "STMT_CLOSE", StmtReset: "STMT_RESET",
	SetOption: "SET_OPTION", StmtFetch: "STMT_FETCH", BinlogDumpGTID: "BINLOG_DUMP_GTID",
	ResetConnection: "RESET_CONNECTION", StmtBulkExecute: "STMT_BULK_EXECUTE"}

// String is the command's name as MySQL's manual has it.
func (c Command) String() string {
	if n, ok := commandNames[c]; ok {
		return "COM_" + n
	}
	return fmt.Sprintf("command 0x%02x", byte(c))
}

// Uint32 reads the number that a command's arguments begin with, a statement's id or a thread's.
func Uint32(args []byte) (uint32, error) {
	c := cursor{b: args}
	n := uint32(c.uint(4))
	return n, c.err("id")
}

// LongData reads the arguments of COM_STMT_SEND_LONG_DATA.
func LongData(args []byte) (id uint32, param uint16, data []byte, err error) {
	c := cursor{b: args}
	id, param = uint32(c.uint(4)), uint16(c.uint(2))
	return id, param, c.b, c.err("long data")
}
