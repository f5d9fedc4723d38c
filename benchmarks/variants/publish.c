/* librabbitmq, RabbitMQ's C client: publishes persistent, mandatory messages, 64 without a confirm at most, and reads
   confirms as they come. `publish HOST PORT VHOST SECONDS` prints what came of it, as the Python programs do. */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { IN_FLIGHT = 64, RING = 1 << 16 };

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static double cpu(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv) {
    static char confirmed[RING];
    unsigned long long sent = 0, low = 0, in_flight = 0, counted = 0;
    char body[300];
    memset(body, 'x', sizeof body);
    if (argc != 5) return 2;
    double seconds = atof(argv[4]);
    amqp_connection_state_t state = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(state);
    if (amqp_socket_open(socket, argv[1], atoi(argv[2]))) return 1;
    amqp_login(state, argv[3], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest");
    amqp_channel_open(state, 1);
    amqp_confirm_select(state, 1);
    if (amqp_get_rpc_reply(state).reply_type != AMQP_RESPONSE_NORMAL) return 1;

    amqp_basic_properties_t properties = {0};
    properties._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG;
    properties.content_type = amqp_cstring_bytes("application/json");
    properties.delivery_mode = 2;
    amqp_bytes_t content = {sizeof body, body}, name = amqp_cstring_bytes("bench");

    double begun = now() + 0.5, until = begun + seconds, used = 0;
    unsigned long long before = 0;
    int measuring = 0;
    while (now() < until) {
        if (!measuring && now() >= begun) measuring = 1, before = counted, used = cpu(), begun = now();
        while (in_flight < IN_FLIGHT) {
            if (amqp_basic_publish(state, 1, name, name, 1, 0, &properties, content)) return 1;
            sent++, in_flight++;
        }
        amqp_frame_t frame;
        if (amqp_simple_wait_frame(state, &frame)) return 1;
        if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD) return 1;
        amqp_basic_ack_t *ack = frame.payload.method.decoded;
        for (unsigned long long tag = ack->multiple ? low + 1 : ack->delivery_tag; tag <= ack->delivery_tag; tag++)
            if (!confirmed[tag % RING]) confirmed[tag % RING] = 1, in_flight--, counted++;
        while (low < sent && confirmed[(low + 1) % RING]) confirmed[++low % RING] = 0;
        amqp_maybe_release_buffers(state);
    }
    printf("{\"operations\": %llu, \"seconds\": %f, \"cpuSeconds\": %f}\n", counted - before, now() - begun, cpu() - used);
    return 0;
}
