#include "la_mailbox.h"

#include <string.h>

/* Positions count bytes and wrap at 2^32; the size is a power of two, so that they go on to fit.
 * Only the putting task writes `put`, only the taking one `taken`; each reads the other's with
 * acquire, so that the bytes it guards are seen. */

enum { SMALLEST = 256 };

int la_mailbox_init(struct la_mailbox *mailbox, uint8_t *memory, uint32_t size) {
    if (memory == NULL || size < SMALLEST || (size & (size - 1)) != 0) {
        return LA_ERR_ARGUMENT;
    }
    mailbox->memory = memory;
    mailbox->size = size;
    atomic_init(&mailbox->put, 0);
    atomic_init(&mailbox->taken, 0);
    atomic_init(&mailbox->high_water, 0);
    return LA_OK;
}

static void copy_in(struct la_mailbox *mailbox, uint32_t position, const void *data,
                    uint32_t length) {
    uint32_t at = position & (mailbox->size - 1);
    uint32_t head = length < mailbox->size - at ? length : mailbox->size - at;
    if (length > 0) {
        memcpy(mailbox->memory + at, data, head);
        memcpy(mailbox->memory, (const uint8_t *)data + head, length - head);
    }
}

static void copy_out(const struct la_mailbox *mailbox, uint32_t position, void *data,
                     uint32_t length) {
    uint32_t at = position & (mailbox->size - 1);
    uint32_t head = length < mailbox->size - at ? length : mailbox->size - at;
    if (length > 0) {
        memcpy(data, mailbox->memory + at, head);
        memcpy((uint8_t *)data + head, mailbox->memory, length - head);
    }
}

static bool fits(const struct la_mailbox *mailbox, uint32_t used, uint32_t length) {
    return length <= mailbox->size - (uint32_t)sizeof(struct la_mail) &&
           mailbox->size - used >= (uint32_t)sizeof(struct la_mail) + length;
}

bool la_mailbox_has_room(struct la_mailbox *mailbox, uint32_t length) {
    uint32_t put = (uint32_t)atomic_load_explicit(&mailbox->put, memory_order_relaxed);
    uint32_t taken = (uint32_t)atomic_load_explicit(&mailbox->taken, memory_order_acquire);
    return fits(mailbox, put - taken, length);
}

int la_mailbox_put(struct la_mailbox *mailbox, const struct la_mail *mail, const void *data) {
    if (!fits(mailbox, 0, mail->length)) {
        return LA_ERR_TOO_LONG;
    }
    uint32_t put = (uint32_t)atomic_load_explicit(&mailbox->put, memory_order_relaxed);
    uint32_t taken = (uint32_t)atomic_load_explicit(&mailbox->taken, memory_order_acquire);
    if (!fits(mailbox, put - taken, mail->length)) {
        return LA_ERR_FULL;
    }
    copy_in(mailbox, put, mail, (uint32_t)sizeof *mail);
    copy_in(mailbox, put + (uint32_t)sizeof *mail, data, mail->length);
    uint32_t end = put + (uint32_t)sizeof *mail + mail->length;
    atomic_store_explicit(&mailbox->put, end, memory_order_release);
    if (end - taken > atomic_load_explicit(&mailbox->high_water, memory_order_relaxed)) {
        atomic_store_explicit(&mailbox->high_water, end - taken, memory_order_relaxed);
    }
    return LA_OK;
}

bool la_mailbox_peek(struct la_mailbox *mailbox, struct la_mail *mail) {
    uint32_t taken = (uint32_t)atomic_load_explicit(&mailbox->taken, memory_order_relaxed);
    uint32_t put = (uint32_t)atomic_load_explicit(&mailbox->put, memory_order_acquire);
    if (put == taken) {
        return false;
    }
    copy_out(mailbox, taken, mail, (uint32_t)sizeof *mail);
    return true;
}

uint32_t la_mailbox_copy(struct la_mailbox *mailbox, uint32_t offset, void *data, uint32_t size) {
    struct la_mail mail;
    if (!la_mailbox_peek(mailbox, &mail) || offset >= mail.length) {
        return 0;
    }
    uint32_t length = mail.length - offset < size ? mail.length - offset : size;
    uint32_t taken = (uint32_t)atomic_load_explicit(&mailbox->taken, memory_order_relaxed);
    copy_out(mailbox, taken + (uint32_t)sizeof mail + offset, data, length);
    return length;
}

void la_mailbox_drop(struct la_mailbox *mailbox) {
    struct la_mail mail;
    if (la_mailbox_peek(mailbox, &mail)) {
        uint32_t taken = (uint32_t)atomic_load_explicit(&mailbox->taken, memory_order_relaxed);
        uint32_t end = taken + (uint32_t)sizeof mail + mail.length;
        atomic_store_explicit(&mailbox->taken, end, memory_order_release);
    }
}
