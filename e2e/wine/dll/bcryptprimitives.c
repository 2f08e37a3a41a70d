/* bcryptprimitives.dll for tests under wine 8, which has none: Go's runtime takes its random numbers from ProcessPrng
 * and does not start without it. */
#include <windows.h>
#include <ntsecapi.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size)
{
    while (size > 0) {
        ULONG n = size > 1 << 20 ? 1 << 20 : (ULONG)size;
        if (!RtlGenRandom(data, n))
            return FALSE;
        data += n;
        size -= n;
    }
    return TRUE;
}
