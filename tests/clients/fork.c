/* One forked call over libwebsockets, the library that FreeSWITCH's mod_audio_fork and jambonz speak with: a subprotocol,
 * HTTP Basic, one text of metadata, a binary message each time the socket is writable, then the end.
 *
 * argv: port, path, subprotocol, Authorization, metadata, bytes a message, end: "close", "graceful" (a message of no bytes)
 * or "hang". stdin: the audio. stdout: "open", "sent", "closed CODE" and "refused", a line each. */
#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char *audio;
static size_t length, offset, piece;
static const char *authorization, *metadata, *end;
static int told, finished, done;

static void tell(const char *word, int code) {
    if (code) printf("%s %d\n", word, code);
    else printf("%s\n", word);
    fflush(stdout);
}

static int write_out(struct lws *wsi, const void *data, size_t size, enum lws_write_protocol kind) {
    unsigned char *buffer = malloc(LWS_PRE + size + 1);
    memcpy(buffer + LWS_PRE, data, size);
    int written = lws_write(wsi, buffer + LWS_PRE, size, kind);
    free(buffer);
    return written < (int)size ? -1 : 0;
}

static int writable(struct lws *wsi) {
    if (!told) {
        told = 1;
        lws_callback_on_writable(wsi);
        return write_out(wsi, metadata, strlen(metadata), LWS_WRITE_TEXT);
    }
    if (offset < length) {
        size_t size = length - offset < piece ? length - offset : piece;
        offset += size;
        lws_callback_on_writable(wsi);
        return write_out(wsi, audio + offset - size, size, LWS_WRITE_BINARY);
    }
    if (finished) return 0;
    finished = 1;
    tell("sent", 0);
    if (!strcmp(end, "graceful")) return write_out(wsi, "", 0, LWS_WRITE_BINARY);
    if (!strcmp(end, "hang")) return 0;
    lws_close_reason(wsi, LWS_CLOSE_STATUS_NORMAL, NULL, 0);
    return -1;
}

static int callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t size) {
    (void)user;
    switch (reason) {
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER: {
        unsigned char **at = in;
        return lws_add_http_header_by_token(wsi, WSI_TOKEN_HTTP_AUTHORIZATION, (const unsigned char *)authorization,
                                            (int)strlen(authorization), at, *at + size);
    }
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        tell("open", 0);
        lws_callback_on_writable(wsi);
        return 0;
    case LWS_CALLBACK_CLIENT_WRITEABLE:
        return writable(wsi);
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        tell("closed", size >= 2 ? ((unsigned char *)in)[0] << 8 | ((unsigned char *)in)[1] : 1005);
        return 0;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        tell("refused", 0);
        done = 1;
        return 0;
    case LWS_CALLBACK_CLIENT_CLOSED:
        done = 1;
        return 0;
    default:
        return 0;
    }
}

int main(int argc, char **argv) {
    if (argc != 8) return 2;
    authorization = argv[4], metadata = argv[5], piece = (size_t)atol(argv[6]), end = argv[7];
    audio = malloc(1 << 24);
    length = fread(audio, 1, 1 << 24, stdin);
    const struct lws_protocols protocols[] = {{argv[3], callback, 0, 1024, 0, NULL, 0}, {NULL, NULL, 0, 0, 0, NULL, 0}};
    struct lws_context_creation_info creation = {.port = CONTEXT_PORT_NO_LISTEN, .protocols = protocols};
    lws_set_log_level(0, NULL);
    struct lws_context *context = lws_create_context(&creation);
    struct lws_client_connect_info connection = {.context = context, .address = "127.0.0.1", .port = atoi(argv[1]),
        .path = argv[2], .host = "127.0.0.1", .origin = "127.0.0.1", .protocol = argv[3]};
    if (context == NULL || lws_client_connect_via_info(&connection) == NULL) return 1;
    while (!done && lws_service(context, 0) >= 0) {}
    lws_context_destroy(context);
    return 0;
}
