/* tbs.dll for tests under wine: TPM Base Services over a TPM emulator on a loopback port.
 *
 *   SALLYPORT_TEST_TPM_PORT     the emulator's port; none: TBS_E_TPM_NOT_FOUND
 *   SALLYPORT_TEST_TPM_AUTH     the endorsement authorization that Tbsi_Get_OwnerAuth gives; none: not found
 *   SALLYPORT_TEST_TPM_LOG      a file with the event log; none: TBS_E_NO_EVENT_LOG
 *   SALLYPORT_TEST_TPM_PLAIN    when set, processes are those of an ordinary user: Windows blocks
 *                               TPM2_ActivateCredential then, and does not tell the endorsement authorization. A
 *                               process whose command line holds the value of this variable has administrator rights.
 */
#include <winsock2.h>
#include <windows.h>
#include <winerror.h>
#include <stdio.h>
#include <wchar.h>

typedef UINT32 TBS_RESULT;
#define TPM_CC_ActivateCredential 0x147u
#define OWNERAUTH_ENDORSEMENT_20 12u
/* What mingw's winerror.h has under other names, or not. */
#undef TBS_E_INVALID_CONTEXT
#undef TBS_E_NO_EVENT_LOG
#undef TBS_E_OWNERAUTH_NOT_FOUND
#undef TPM_E_COMMAND_BLOCKED
#define TBS_E_INVALID_CONTEXT 0x80284004u
#define TBS_E_NO_EVENT_LOG 0x80284011u
#define TBS_E_OWNERAUTH_NOT_FOUND 0x80284015u
#define TPM_E_COMMAND_BLOCKED 0x80280400u

typedef struct { UINT32 structVersion, tpmVersion, tpmInterfaceType, tpmImpRevision; } DEVICE_INFO;
typedef struct { SOCKET socket; } CONTEXT_T;

static const char *env(const char *name, char *buf, DWORD size)
{
    DWORD n = GetEnvironmentVariableA(name, buf, size);
    return n > 0 && n < size ? buf : NULL;
}

static BOOL plain_user(void)
{
    wchar_t mark[128];
    DWORD n = GetEnvironmentVariableW(L"SALLYPORT_TEST_TPM_PLAIN", mark, 128);
    return n > 0 && n < 128 && wcsstr(GetCommandLineW(), mark) == NULL;
}

static UINT32 be32(const BYTE *b) { return (UINT32)b[0] << 24 | (UINT32)b[1] << 16 | (UINT32)b[2] << 8 | b[3]; }

static BOOL transfer(SOCKET s, BYTE *b, int n, BOOL out)
{
    while (n > 0) {
        int m = out ? send(s, (const char *)b, n, 0) : recv(s, (char *)b, n, 0);
        if (m < 0 && WSAGetLastError() == WSAEINTR)
            continue;
        if (m <= 0) {
            fprintf(stderr, "tbs.dll: %s gave %d, error %d\n", out ? "send" : "recv", m, WSAGetLastError());
            return FALSE;
        }
        b += m;
        n -= m;
    }
    return TRUE;
}

__declspec(dllexport) TBS_RESULT WINAPI Tbsi_GetDeviceInfo(UINT32 size, PVOID info)
{
    DEVICE_INFO *d = info;
    char port[16];
    if (size < sizeof *d || !d)
        return TBS_E_BAD_PARAMETER;
    if (!env("SALLYPORT_TEST_TPM_PORT", port, sizeof port))
        return TBS_E_TPM_NOT_FOUND;
    d->structVersion = 1;
    d->tpmVersion = 2;
    d->tpmInterfaceType = 3;
    d->tpmImpRevision = 0;
    return TBS_SUCCESS;
}

__declspec(dllexport) TBS_RESULT WINAPI Tbsi_Context_Create(const VOID *params, PVOID *out)
{
    char port[16];
    WSADATA data;
    struct sockaddr_in a = {0};
    CONTEXT_T *c;
    (void)params;
    if (!out)
        return TBS_E_BAD_PARAMETER;
    if (!env("SALLYPORT_TEST_TPM_PORT", port, sizeof port))
        return TBS_E_TPM_NOT_FOUND;
    if (WSAStartup(MAKEWORD(2, 2), &data) != 0)
        return TBS_E_IOERROR;
    c = HeapAlloc(GetProcessHeap(), HEAP_ZERO_MEMORY, sizeof *c);
    if (!c)
        return TBS_E_IOERROR;
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.sin_port = htons((u_short)atoi(port));
    c->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (c->socket == INVALID_SOCKET || connect(c->socket, (struct sockaddr *)&a, sizeof a) != 0) {
        HeapFree(GetProcessHeap(), 0, c);
        return TBS_E_IOERROR;
    }
    *out = c;
    return TBS_SUCCESS;
}

__declspec(dllexport) TBS_RESULT WINAPI Tbsip_Submit_Command(PVOID context, UINT32 locality, UINT32 priority,
    const BYTE *command, UINT32 size, BYTE *result, UINT32 *got)
{
    CONTEXT_T *c = context;
    BYTE head[10];
    UINT32 n;
    (void)locality;
    (void)priority;
    if (!c)
        return TBS_E_INVALID_CONTEXT;
    if (!command || size < 10 || !result || !got)
        return TBS_E_BAD_PARAMETER;
    if (be32(command + 6) == TPM_CC_ActivateCredential && plain_user())
        return TPM_E_COMMAND_BLOCKED;
    if (!transfer(c->socket, (BYTE *)command, (int)size, TRUE) || !transfer(c->socket, head, 10, FALSE))
        return TBS_E_IOERROR;
    n = be32(head + 2);
    if (n < 10 || n > *got)
        return TBS_E_INSUFFICIENT_BUFFER;
    memcpy(result, head, 10);
    if (!transfer(c->socket, result + 10, (int)n - 10, FALSE))
        return TBS_E_IOERROR;
    *got = n;
    return TBS_SUCCESS;
}

__declspec(dllexport) TBS_RESULT WINAPI Tbsip_Cancel_Commands(PVOID context)
{
    return context ? TBS_SUCCESS : TBS_E_INVALID_CONTEXT;
}

__declspec(dllexport) TBS_RESULT WINAPI Tbsip_Context_Close(PVOID context)
{
    CONTEXT_T *c = context;
    if (!c)
        return TBS_E_INVALID_CONTEXT;
    closesocket(c->socket);
    HeapFree(GetProcessHeap(), 0, c);
    WSACleanup();
    return TBS_SUCCESS;
}

__declspec(dllexport) TBS_RESULT WINAPI Tbsi_Get_OwnerAuth(PVOID context, UINT32 type, BYTE *out, UINT32 *size)
{
    char auth[256];
    UINT32 n;
    if (!context || !size)
        return TBS_E_INVALID_CONTEXT;
    if (type != OWNERAUTH_ENDORSEMENT_20 || plain_user() || !env("SALLYPORT_TEST_TPM_AUTH", auth, sizeof auth))
        return TBS_E_OWNERAUTH_NOT_FOUND;
    n = (UINT32)strlen(auth);
    if (!out || *size < n) {
        *size = n;
        return TBS_E_INSUFFICIENT_BUFFER;
    }
    memcpy(out, auth, n);
    *size = n;
    return TBS_SUCCESS;
}

__declspec(dllexport) TBS_RESULT WINAPI Tbsi_Get_TCG_Log(PVOID context, BYTE *out, UINT32 *size)
{
    char path[512];
    HANDLE f;
    DWORD n, got = 0;
    TBS_RESULT rc = TBS_SUCCESS;
    if (!context || !size)
        return TBS_E_INVALID_CONTEXT;
    if (!env("SALLYPORT_TEST_TPM_LOG", path, sizeof path))
        return TBS_E_NO_EVENT_LOG;
    f = CreateFileA(path, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
    if (f == INVALID_HANDLE_VALUE)
        return TBS_E_NO_EVENT_LOG;
    n = GetFileSize(f, NULL);
    if (out && *size < n)
        rc = TBS_E_INSUFFICIENT_BUFFER;
    else if (out && (!ReadFile(f, out, n, &got, NULL) || got != n))
        rc = TBS_E_IOERROR;
    *size = n;
    CloseHandle(f);
    return rc;
}
