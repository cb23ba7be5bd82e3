/* The functions of memory and text that compilers take for granted, so that no C library is needed. */
#include <stddef.h>
#include <stdint.h>

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *one, const void *other, size_t size);
size_t strlen(const char *text);

static int aligned(uintptr_t address) {
    return address % sizeof(uint32_t) == 0;
}

/* from the first byte to the last, in words where both begin at one */
static void *forwards(uint8_t *target, const uint8_t *source, size_t size) {
    void *to = target;
    if (aligned((uintptr_t)target | (uintptr_t)source)) {
        for (; size >= sizeof(uint32_t); size -= sizeof(uint32_t)) {
            *(uint32_t *)(void *)target = *(const uint32_t *)(const void *)source;
            target += sizeof(uint32_t);
            source += sizeof(uint32_t);
        }
    }
    while (size--) {
        *target++ = *source++;
    }
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    return forwards(to, from, size);
}

void *memmove(void *to, const void *from, size_t size) {
    uint8_t *target = to;
    const uint8_t *source = from;
    if (target <= source) {
        return forwards(target, source, size);
    }
    while (size--) {
        target[size] = source[size];
    }
    return to;
}

void *memset(void *to, int value, size_t size) {
    uint8_t *target = to;
    const uint32_t word = (uint8_t)value * 0x01010101u;
    if (aligned((uintptr_t)target)) {
        for (; size >= sizeof word; size -= sizeof word) {
            *(uint32_t *)(void *)target = word;
            target += sizeof word;
        }
    }
    while (size--) {
        *target++ = (uint8_t)value;
    }
    return to;
}

int memcmp(const void *one, const void *other, size_t size) {
    const uint8_t *a = one, *b = other;
    for (; size; size--, a++, b++) {
        if (*a != *b) {
            return *a < *b ? -1 : 1;
        }
    }
    return 0;
}

size_t strlen(const char *text) {
    size_t size = 0;
    while (text[size]) {
        size++;
    }
    return size;
}
