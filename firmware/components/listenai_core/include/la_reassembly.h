/* WebSocket messages come in frames, and frames in pieces: which bytes belong together? */
#ifndef LA_REASSEMBLY_H
#define LA_REASSEMBLY_H

#include "la_types.h"

/* The opcode of a WebSocket frame (RFC 6455, section 5.2). */
enum la_opcode { LA_OPCODE_CONTINUATION = 0, LA_OPCODE_TEXT = 1, LA_OPCODE_BINARY = 2 };

/* A piece of a frame, as esp_websocket_client tells it: op_code, fin, data_ptr, data_len,
 * payload_offset, payload_len. */
struct la_ws_piece {
    int opcode;
    bool fin;            /* the frame is its message's last */
    const uint8_t *data;
    size_t length;       /* of the piece */
    size_t offset;       /* of the piece in the frame */
    size_t frame_length; /* of the whole frame */
};

struct la_reassembly {
    int opcode;          /* of the message that is open, or -1 */
    size_t next_offset;  /* of the frame that is open */
    size_t frame_length;
    bool in_frame;
    bool fin;
};

/* What a piece is to its message. */
struct la_ws_part {
    int opcode;  /* LA_OPCODE_TEXT or LA_OPCODE_BINARY */
    bool first;  /* the message begins with it */
    bool last;   /* the message ends with it */
};

void la_reassembly_init(struct la_reassembly *reassembly);

/* Checks a piece and says what it is.  LA_ERR_PROTOCOL: a gap, an overlap, a message inside of
 * another, an unknown opcode; nothing is changed then. */
int la_reassembly_check(const struct la_reassembly *reassembly, const struct la_ws_piece *piece,
                        struct la_ws_part *part);

/* So many bytes of a checked piece were taken: all, or what there was room for. */
void la_reassembly_take(struct la_reassembly *reassembly, const struct la_ws_piece *piece,
                        size_t taken);

#endif
