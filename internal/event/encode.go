package event

import (
	"encoding/json"
	"strconv"
	"time"
)

// appendJSON appends the event as encoding/json writes it, several times as fast: agents write one for each statement.
// Events with a Resource, which are rare, go the long way.
func (e *Event) appendJSON(b []byte) ([]byte, error) {
	if e.Resource != nil {
		all, err := json.Marshal(e)
		return append(b, all...), err
	}
	b = appendText(append(b, `{"event":`...), string(e.Kind))
	b = appendText(append(b, `,"code":`...), e.Code)
	at := e.Time.UTC()
	if y := at.Year(); y < 0 || y > 9999 {
		_, err := at.MarshalJSON() // which says so
		return nil, err
	}
	b = append(at.AppendFormat(append(b, `,"time":"`...), time.RFC3339Nano), '"')
	b = appendText(append(b, `,"uid":`...), e.UID)
	b = appendText(append(b, `,"cluster_name":`...), e.Cluster)
	b = appendText(append(b, `,"user":`...), e.User)
	b = strconv.AppendBool(append(b, `,"success":`...), e.Success)
	b = appendText(append(b, `,"message":`...), e.Message)
	if d := e.Device; d != nil {
		b = appendText(append(b, `,"trusted_device":{"device_id":`...), d.ID)
		b = appendText(append(b, `,"os_type":`...), d.OSType)
		b = appendText(append(b, `,"asset_tag":`...), d.AssetTag)
		b = append(appendText(append(b, `,"credential_id":`...), d.CredentialID), '}')
	}
	if s := e.Session; s != nil {
		b = s.appendJSON(b)
	}
	if a := e.Action; a != nil {
		b = a.appendJSON(b)
	}
	return append(b, '}'), nil
}

func (s *Session) appendJSON(b []byte) []byte {
	b = appendNamed(b, "sid", s.SessionID)
	b = appendNamed(b, "login", s.Login)
	b = appendNamed(b, "server_id", s.ServerID)
	b = appendNamed(b, "server_name", s.ServerName)
	b = appendNamed(b, "addr", s.Addr)
	b = appendNamed(b, "protocol", s.Protocol)
	b = appendNamed(b, "reason", s.Reason)
	b = appendNamed(b, "source", s.Source)
	b = appendNamed(b, "recording", s.Recording)
	return appendNamed(b, "mfa_device", s.MFADevice)
}

func (a *Action) appendJSON(b []byte) []byte {
	b = appendNamed(b, "command", a.Command)
	if a.ExitCode != nil {
		b = strconv.AppendInt(append(b, `,"exit_code":`...), int64(*a.ExitCode), 10)
	}
	b = appendNamed(b, "path", a.Path)
	b = appendNamed(b, "direction", a.Direction)
	b = appendNamed(b, "target", a.Target)
	b = appendNamed(b, "db_name", a.DBName)
	b = appendNamed(b, "db_user", a.DBUser)
	b = appendNamed(b, "db_query", a.Query)
	if len(a.Parameters) > 0 {
		b = append(b, `,"db_query_parameters":[`...)
		for i, p := range a.Parameters {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendText(b, p)
		}
		b = append(b, ']')
	}
	b = appendNamed(b, "verb", a.Verb)
	b = appendCount(b, "status_code", int64(a.Status))
	if t := a.Traffic; t != nil {
		b = appendCount(b, "bytes_sent", t.Sent)
		b = appendCount(b, "bytes_received", t.Received)
		b = appendCount(b, "duration_ms", t.Millis)
	}
	return b
}

// appendCount appends a number that is left out where it is 0.
func appendCount(b []byte, name string, n int64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendInt(append(append(append(b, `,"`...), name...), `":`...), n, 10)
}

// appendNamed appends a field that is left out where it is empty.
func appendNamed(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":`...)
	return appendText(b, s)
}

// escapes are encoding/json's for bytes that statements are full of; 0 is a byte that stands for itself.
var escapes = [127]byte{'"': '"', '\\': '\\', '\n': 'n', '\r': 'r', '\t': 't'}

// appendText appends a string; what needs an escape of another kind goes the long way.
func appendText(b []byte, s string) []byte {
	start := len(b)
	b = append(b, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c > '~' || c == '<' || c == '>' || c == '&' || c < ' ' && escapes[c] == 0 {
			long, _ := json.Marshal(s) // a string always can be
			return append(b[:start], long...)
		}
		if e := escapes[c]; e != 0 {
			b = append(append(append(b, s[from:i]...), '\\'), e)
			from = i + 1
		}
	}
	return append(append(b, s[from:]...), '"')
}
