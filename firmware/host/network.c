#include "network.h"

#include <libwebsockets.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "la_mailbox.h"

enum {
    MAILBOX_BYTES = 1 << 18, /* 8 s of audio: a long stall */
    RECEIVE_BYTES = 4096,
    KEEP_ROOM = 4 * RECEIVE_BYTES, /* what may still come after reading was stopped */
    CLOSE_MS = 500,
    MESSAGE_BYTES = 4096           /* the longest message that the core sends is LA_SEND_SIZE */
};

/* Kinds of mail.  The first three are also opcodes. */
enum { MAIL_CONTINUATION, MAIL_TEXT, MAIL_BINARY, MAIL_OPEN, MAIL_OPENED, MAIL_CLOSE, MAIL_CUT };

enum { FLAG_FIN = 1, GENERATION_SHIFT = 1 };

struct network {
    struct network_url url;
    struct network_faults faults;
    char *key;
    la_ms started;
    struct lws_context *context;
    pthread_t thread;
    struct la_mailbox in;
    struct la_mailbox out;
    uint8_t in_memory[MAILBOX_BYTES];
    uint8_t out_memory[MAILBOX_BYTES];
    atomic_bool stopping; /* as soon as the socket is closed */
    atomic_bool leaving;  /* at once */
    atomic_bool left;
    /* of the network's thread */
    struct lws *socket;
    uint16_t generation; /* of the socket: what comes from an older one is dropped */
    bool open;
    bool reading_stopped;
    bool close_now;
    uint16_t close_code; /* as the server said */
    uint8_t send_memory[LWS_PRE + MESSAGE_BYTES];
    /* of the core's thread */
    uint16_t wanted;     /* the generation it takes mail of */
    uint32_t mail_used;  /* of the oldest mail in `in` */
};

la_ms network_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (la_ms)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static uint32_t stamp(const struct network *network) {
    return (uint32_t)(network_now() - network->started);
}

/* Whether a message that was put at `then` has come through by now. */
static bool passes(const struct network *network, uint32_t then) {
    const struct network_faults *faults = &network->faults;
    uint32_t now = stamp(network);
    bool stalled = faults->stall_every_ms > 0 &&
                   now % (uint32_t)faults->stall_every_ms < (uint32_t)faults->stall_ms;
    return !stalled && now - then >= (uint32_t)faults->delay_ms;
}

const char *network_parse_url(const char *text, struct network_url *url) {
    *url = (struct network_url){.port = 80};
    if (strncmp(text, "ws://", 5) != 0) {
        return "must begin with ws:// (this program speaks no TLS)";
    }
    text += 5;
    size_t host = strcspn(text, ":/");
    if (host == 0 || host >= sizeof url->host) {
        return "must name a host: ws://HOST:PORT/PATH";
    }
    memcpy(url->host, text, host);
    text += host;
    if (*text == ':') {
        char *end = NULL;
        long port = strtol(text + 1, &end, 10);
        if (end == text + 1 || port < 1 || port > 65535) {
            return "must have a port from 1 to 65535";
        }
        url->port = (int)port;
        text = end;
    }
    if (strlen(text) >= sizeof url->path || (*text != '/' && *text != '\0')) {
        return "must end with a path of at most 255 characters";
    }
    strcpy(url->path, *text == '/' ? text : "/");
    return NULL;
}

/* --- the network's thread ----------------------------------------------------------------- */

static void tell(struct network *network, uint16_t kind, bool fin, const void *data,
                 uint32_t length) {
    struct la_mail mail = {
        .kind = kind,
        .flags = (uint16_t)(network->generation << GENERATION_SHIFT | (fin ? FLAG_FIN : 0)),
        .number = stamp(network),
        .total = network->close_code,
        .length = length,
    };
    if (la_mailbox_put(&network->in, &mail, data) != LA_OK) {
        lwsl_err("la_device: the core does not read its mail; the connection is cut\n");
        network->close_now = true;
        lws_callback_on_writable(network->socket);
    }
}

static void connect_now(struct network *network) {
    struct lws_client_connect_info info = {0};
    info.context = network->context;
    info.address = network->url.host;
    info.host = network->url.host;
    info.port = network->url.port;
    info.path = network->url.path;
    info.local_protocol_name = "listenai";
    info.pwsi = &network->socket;
    network->generation++;
    network->open = false;
    network->close_now = false;
    network->reading_stopped = false;
    network->close_code = 0;
    (void)lws_client_connect_via_info(&info); /* a failure comes as CLIENT_CONNECTION_ERROR */
}

/* Removes what the core has put into the mailbox and is not for this connection. */
static void take_command(struct network *network, const struct la_mail *mail) {
    switch (mail->kind) {
    case MAIL_OPEN:
        connect_now(network);
        break;
    case MAIL_CLOSE:
        network->close_now = true;
        if (network->open) {
            lws_callback_on_writable(network->socket);
        } else if (network->socket != NULL) {
            lws_set_timeout(network->socket, PENDING_TIMEOUT_CLOSE_SEND, LWS_TO_KILL_ASYNC);
        }
        break;
    case MAIL_CUT:
        if (network->open) {
            shutdown(lws_get_socket_fd(network->socket), SHUT_RDWR);
        }
        break;
    default:
        break;
    }
    la_mailbox_drop(&network->out);
}

/* Does commands as they come; a message waits until the socket is writeable. */
static void look_into_mailbox(struct network *network) {
    struct la_mail mail;
    while (la_mailbox_peek(&network->out, &mail)) {
        bool message = mail.kind == MAIL_TEXT || mail.kind == MAIL_BINARY;
        if (message && network->open && !network->close_now) {
            if (passes(network, mail.number)) {
                lws_callback_on_writable(network->socket);
            }
            break;
        }
        if (message && network->socket != NULL && !network->close_now) {
            break; /* not yet open */
        }
        take_command(network, &mail); /* or a message that nobody waits for any more */
    }
    if (network->reading_stopped && network->open &&
        la_mailbox_has_room(&network->in, MAILBOX_BYTES / 2)) {
        network->reading_stopped = false;
        lws_rx_flow_control(network->socket, 1);
    }
}

static int write_one(struct network *network) {
    struct la_mail mail;
    if (!la_mailbox_peek(&network->out, &mail) ||
        (mail.kind != MAIL_TEXT && mail.kind != MAIL_BINARY) || !passes(network, mail.number)) {
        return 0;
    }
    uint32_t length = la_mailbox_copy(&network->out, 0, network->send_memory + LWS_PRE,
                                      MESSAGE_BYTES);
    la_mailbox_drop(&network->out);
    enum lws_write_protocol kind = mail.kind == MAIL_TEXT ? LWS_WRITE_TEXT : LWS_WRITE_BINARY;
    int sent = lws_write(network->socket, network->send_memory + LWS_PRE, length, kind);
    if (sent < (int)length) {
        return -1;
    }
    lws_callback_on_writable(network->socket);
    return 0;
}

static void receive(struct network *network, struct lws *socket, const void *data, size_t length) {
    uint16_t kind = !lws_is_first_fragment(socket)  ? MAIL_CONTINUATION
                    : lws_frame_is_binary(socket) ? MAIL_BINARY
                                                    : MAIL_TEXT;
    tell(network, kind, lws_is_final_fragment(socket) != 0, data, (uint32_t)length);
    if (!la_mailbox_has_room(&network->in, KEEP_ROOM)) {
        network->reading_stopped = true;
        lws_rx_flow_control(socket, 0);
    }
}

static void closed(struct network *network, struct lws *socket) {
    if (socket == network->socket || network->socket == NULL) {
        network->socket = NULL;
        network->open = false;
        tell(network, MAIL_CLOSE, false, NULL, 0);
    }
}

static int callback(struct lws *socket, enum lws_callback_reasons reason, void *user, void *in,
                    size_t length) {
    (void)user;
    struct network *network = lws_context_user(lws_get_context(socket));
    switch (reason) {
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER:
        if (network->key != NULL) {
            unsigned char **at = (unsigned char **)in;
            char bearer[300];
            int size = lws_snprintf(bearer, sizeof bearer, "Bearer %s", network->key);
            if (lws_add_http_header_by_name(socket, (const unsigned char *)"authorization:",
                                            (const unsigned char *)bearer, size, at,
                                            *at + length) != 0) {
                return -1;
            }
        }
        break;
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        network->open = true;
        tell(network, MAIL_OPENED, false, NULL, 0);
        break;
    case LWS_CALLBACK_CLIENT_RECEIVE:
        if (!network->close_now) {
            receive(network, socket, in, length);
        }
        break;
    case LWS_CALLBACK_CLIENT_WRITEABLE:
        if (network->close_now) {
            lws_close_reason(socket, LWS_CLOSE_STATUS_NORMAL, NULL, 0);
            return -1;
        }
        return write_one(network);
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        if (length >= 2) {
            const uint8_t *code = in;
            network->close_code = (uint16_t)(code[0] << 8 | code[1]);
        }
        break;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
    case LWS_CALLBACK_CLIENT_CLOSED:
        closed(network, socket);
        break;
    case LWS_CALLBACK_EVENT_WAIT_CANCELLED:
        look_into_mailbox(network);
        break;
    default:
        break;
    }
    return 0;
}

static void *serve(void *context) {
    struct network *network = context;
    while (!atomic_load(&network->stopping) || network->socket != NULL) {
        if (atomic_load(&network->leaving)) {
            break; /* the server does not answer our close */
        }
        lws_service(network->context, 0);
    }
    atomic_store(&network->left, true);
    return NULL;
}

/* --- the core's thread -------------------------------------------------------------------- */

struct network *network_start(const struct network_url *url, const char *key,
                              struct network_faults faults) {
    static const struct lws_protocols PROTOCOLS[] = {
        {"listenai", callback, 0, RECEIVE_BYTES, 0, NULL, 0},
        {NULL, NULL, 0, 0, 0, NULL, 0},
    };
    struct network *network = calloc(1, sizeof *network);
    if (network == NULL) {
        return NULL;
    }
    network->url = *url;
    network->faults = faults;
    network->key = key != NULL ? strdup(key) : NULL;
    network->started = network_now();
    la_mailbox_init(&network->in, network->in_memory, MAILBOX_BYTES);
    la_mailbox_init(&network->out, network->out_memory, MAILBOX_BYTES);
    atomic_init(&network->stopping, false);
    atomic_init(&network->leaving, false);
    atomic_init(&network->left, false);
    lws_set_log_level(LLL_ERR, NULL);
    struct lws_context_creation_info info = {0};
    info.port = CONTEXT_PORT_NO_LISTEN;
    info.protocols = PROTOCOLS;
    info.user = network;
    network->context = lws_create_context(&info);
    if (network->context == NULL ||
        pthread_create(&network->thread, NULL, serve, network) != 0) {
        lws_context_destroy(network->context);
        free(network->key);
        free(network);
        return NULL;
    }
    return network;
}

void network_stop(struct network *network) {
    const struct timespec moment = {.tv_nsec = 10000000};
    network_close(network);
    atomic_store(&network->stopping, true);
    for (int i = 0; i < CLOSE_MS / 10 && !atomic_load(&network->left); i++) {
        lws_cancel_service(network->context);
        nanosleep(&moment, NULL);
    }
    atomic_store(&network->leaving, true);
    lws_cancel_service(network->context);
    pthread_join(network->thread, NULL);
    lws_context_destroy(network->context);
    free(network->key);
    free(network);
}

static int command(struct network *network, uint16_t kind, const void *data, size_t length) {
    struct la_mail mail = {
        .kind = kind, .number = stamp(network), .length = (uint32_t)length};
    int problem = la_mailbox_put(&network->out, &mail, data);
    lws_cancel_service(network->context);
    return problem;
}

int network_open(struct network *network) {
    network->wanted++;
    network->mail_used = 0;
    return command(network, MAIL_OPEN, NULL, 0);
}

int network_send(struct network *network, int opcode, const void *data, size_t length) {
    return command(network, (uint16_t)opcode, data, length);
}

void network_close(struct network *network) {
    (void)command(network, MAIL_CLOSE, NULL, 0);
}

void network_cut(struct network *network) {
    (void)command(network, MAIL_CUT, NULL, 0);
}

/* False: the device has no room for the rest until its next tick. */
static bool deliver_data(struct network *network, struct la_device *device,
                         const struct la_mail *mail, size_t piece_bytes) {
    uint8_t data[RECEIVE_BYTES];
    size_t size = piece_bytes < sizeof data ? piece_bytes : sizeof data;
    do {
        size_t length = la_mailbox_copy(&network->in, network->mail_used, data, (uint32_t)size);
        struct la_ws_piece piece = {
            .opcode = mail->kind,
            .fin = (mail->flags & FLAG_FIN) != 0,
            .data = data,
            .length = length,
            .offset = network->mail_used,
            .frame_length = mail->length,
        };
        int taken = la_device_on_ws_data(device, &piece);
        if (taken < 0) {
            network->mail_used = mail->length; /* the device has hung up */
            break;
        }
        network->mail_used += (uint32_t)taken;
        if ((size_t)taken < length) {
            return false;
        }
    } while (network->mail_used < mail->length);
    network->mail_used = 0;
    la_mailbox_drop(&network->in);
    return true;
}

void network_deliver(struct network *network, struct la_device *device, size_t piece_bytes) {
    struct la_mail mail;
    while (la_mailbox_peek(&network->in, &mail)) {
        uint16_t generation = mail.flags >> GENERATION_SHIFT;
        if (generation != (uint16_t)(network->wanted & (UINT16_MAX >> GENERATION_SHIFT)) ||
            la_device_state(device) == LA_STATE_DISCONNECTED) {
            network->mail_used = 0;
            la_mailbox_drop(&network->in);
            continue;
        }
        if (!passes(network, mail.number)) {
            break;
        }
        if (mail.kind == MAIL_OPENED) {
            la_mailbox_drop(&network->in);
            la_device_on_ws_open(device);
        } else if (mail.kind == MAIL_CLOSE) {
            la_mailbox_drop(&network->in);
            la_device_on_ws_closed(device, (int)mail.total);
        } else if (!deliver_data(network, device, &mail, piece_bytes)) {
            break;
        }
    }
    lws_cancel_service(network->context); /* there may be room now, or a delay may be over */
}

uint32_t network_inbound_high_water(struct network *network) {
    return (uint32_t)atomic_load(&network->in.high_water);
}

uint32_t network_outbound_high_water(struct network *network) {
    return (uint32_t)atomic_load(&network->out.high_water);
}
