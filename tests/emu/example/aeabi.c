/* What clang calls on Arm in place of memcpy and memset (Arm RTABI, "Memory copying, clearing, and setting"), where
 * its runtime library is missing: Debian brings none for bare boards. */
#include <stddef.h>

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int value, size_t n);

void __aeabi_memcpy(void *to, const void *from, size_t n);
void __aeabi_memcpy4(void *to, const void *from, size_t n);
void __aeabi_memset(void *to, size_t n, int value);
void __aeabi_memclr(void *to, size_t n);
void __aeabi_memclr4(void *to, size_t n);

void __aeabi_memcpy(void *to, const void *from, size_t n)
{
    memcpy(to, from, n);
}

void __aeabi_memcpy4(void *to, const void *from, size_t n)
{
    memcpy(to, from, n);
}

void __aeabi_memset(void *to, size_t n, int value)
{
    memset(to, value, n);
}

void __aeabi_memclr(void *to, size_t n)
{
    memset(to, 0, n);
}

void __aeabi_memclr4(void *to, size_t n)
{
    memset(to, 0, n);
}
