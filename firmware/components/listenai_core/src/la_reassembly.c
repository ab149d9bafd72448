#include "la_reassembly.h"

enum { NO_MESSAGE = -1 };

void la_reassembly_init(struct la_reassembly *reassembly) {
    *reassembly = (struct la_reassembly){.opcode = NO_MESSAGE};
}

static bool is_start(int opcode) {
    return opcode == LA_OPCODE_TEXT || opcode == LA_OPCODE_BINARY;
}

/* Whether the piece goes on where the last one of its frame ended. */
static bool continues_frame(const struct la_reassembly *reassembly,
                            const struct la_ws_piece *piece) {
    return piece->offset == reassembly->next_offset &&
           piece->frame_length == reassembly->frame_length && piece->fin == reassembly->fin &&
           (piece->opcode == reassembly->opcode || piece->opcode == LA_OPCODE_CONTINUATION);
}

/* Whether a frame may begin here: a new message, or the next frame of the one that is open. */
static bool begins_frame(const struct la_reassembly *reassembly,
                         const struct la_ws_piece *piece) {
    bool fits = reassembly->opcode == NO_MESSAGE ? is_start(piece->opcode)
                                                 : piece->opcode == LA_OPCODE_CONTINUATION;
    return fits && piece->offset == 0;
}

int la_reassembly_check(const struct la_reassembly *reassembly, const struct la_ws_piece *piece,
                        struct la_ws_part *part) {
    bool fits = reassembly->in_frame ? continues_frame(reassembly, piece)
                                     : begins_frame(reassembly, piece);
    if (!fits || piece->offset > piece->frame_length ||
        piece->length > piece->frame_length - piece->offset) {
        return LA_ERR_PROTOCOL;
    }
    *part = (struct la_ws_part){
        .opcode = reassembly->opcode == NO_MESSAGE ? piece->opcode : reassembly->opcode,
        .first = reassembly->opcode == NO_MESSAGE,
        .last = piece->fin && piece->offset + piece->length == piece->frame_length,
    };
    return LA_OK;
}

void la_reassembly_take(struct la_reassembly *reassembly, const struct la_ws_piece *piece,
                        size_t taken) {
    if (taken == 0 && piece->length > 0) {
        return; /* the same piece will be offered again */
    }
    if (reassembly->opcode == NO_MESSAGE) {
        reassembly->opcode = piece->opcode;
    }
    reassembly->frame_length = piece->frame_length;
    reassembly->fin = piece->fin;
    reassembly->next_offset = piece->offset + taken;
    reassembly->in_frame = reassembly->next_offset < piece->frame_length;
    if (!reassembly->in_frame && piece->fin) {
        la_reassembly_init(reassembly);
    }
}
