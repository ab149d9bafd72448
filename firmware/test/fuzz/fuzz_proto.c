/* A message in one piece and the same message in many are the same message, whatever it is; and
 * a WAV reader takes any bytes.  The first byte says how large the pieces are. */
#include <stdlib.h>
#include <string.h>

#include "la_hotpin.h"
#include "la_proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_in_pieces(struct la_proto_reader *reader, const char *text, size_t length,
                           size_t piece) {
    la_proto_begin(reader);
    for (size_t at = 0; at < length; at += piece) {
        (void)la_proto_feed(reader, text + at, length - at < piece ? length - at : piece);
    }
}

static void read_wav(const uint8_t *data, size_t size, size_t piece) {
    struct la_hotpin hotpin = {0};
    uint8_t out[320];
    la_hotpin_wav_begin(&hotpin);
    for (size_t at = 0; at < size;) {
        enum la_wav_part part;
        size_t out_length = 0;
        size_t length = size - at < piece ? size - at : piece;
        int taken =
            la_hotpin_wav_feed(&hotpin, data + at, length, &part, out, sizeof out, &out_length);
        if (taken < 0) {
            return;
        }
        if ((size_t)taken > length || out_length > sizeof out ||
            (taken == 0 && part != LA_WAV_ENDED)) {
            abort(); /* read too much, or would go on for ever */
        }
        at += (size_t)taken;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct la_proto_reader whole;
    static struct la_proto_reader pieces;
    if (size < 1) {
        return 0;
    }
    size_t piece = 1 + data[0] % 64U;
    const char *text = (const char *)data + 1;
    read_in_pieces(&whole, text, size - 1, size);
    read_in_pieces(&pieces, text, size - 1, piece);
    int first = la_proto_end(&whole);
    if (first != la_proto_end(&pieces) ||
        memcmp(&whole.message, &pieces.message, sizeof whole.message) != 0) {
        abort();
    }
    const struct la_message *message = &whole.message;
    if (memchr(message->text, '\0', sizeof message->text) == NULL ||
        memchr(message->call_id, '\0', sizeof message->call_id) == NULL ||
        (first == LA_OK && message->type == LA_MESSAGE_FLUSH && !message->has_stream_id)) {
        abort();
    }
    read_wav(data + 1, size - 1, piece);
    return 0;
}
