// Verilated board top: its two UART pins become queues of bytes.

#include <cstdint>
#include <deque>

#include "Vtop.h"
#include "verilated.h"

namespace {

constexpr int BITS = 10;  // start bit, 8 data bits, stop bit

struct Board {
    VerilatedContext context;
    Vtop top{&context};
    const uint32_t divisor;
    std::deque<uint8_t> to_board, to_host;
    uint32_t sending = 0, send_left = 0, send_timer = 0;      // bits to the board
    uint32_t received = 0, receive_left = 0, receive_timer = 0;  // bits from it

    explicit Board(uint32_t cycles) : divisor(cycles) {
        top.clk = 0;
        top.rst = 0;
        top.rx = 1;
    }

    void drive() {
        if (send_left == 0 && !to_board.empty()) {
            sending = uint32_t(to_board.front()) << 1 | 1u << 9;
            to_board.pop_front();
            send_left = BITS;
            send_timer = divisor;
        }
        top.rx = send_left == 0 ? 1 : sending & 1;
        if (send_left != 0 && --send_timer == 0) {
            sending >>= 1;
            --send_left;
            send_timer = divisor;
        }
    }

    void listen() {
        if (receive_left == 0) {
            if (top.tx) return;
            receive_left = BITS;
            receive_timer = divisor / 2;
        }
        if (receive_timer-- != 0) return;
        receive_timer = divisor - 1;
        received = received >> 1 | uint32_t(top.tx) << 9;
        if (--receive_left == 0) to_host.push_back(uint8_t(received >> 1));
    }

    void step() {
        top.clk = 0;
        drive();
        top.eval();
        listen();
        top.clk = 1;
        top.eval();
    }
};

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT Board *board_new(uint32_t divisor) { return new Board(divisor); }

EXPORT void board_delete(Board *board) {
    board->top.final();
    delete board;
}

EXPORT void board_send(Board *board, const uint8_t *data, uint32_t count) {
    board->to_board.insert(board->to_board.end(), data, data + count);
}

// Bytes that are still on their way to the board.
EXPORT uint32_t board_unsent(Board *board) {
    return uint32_t(board->to_board.size()) + (board->send_left != 0);
}

EXPORT void board_run(Board *board, uint64_t cycles) {
    while (cycles--) board->step();
}

EXPORT uint32_t board_receive(Board *board, uint8_t *data, uint32_t most) {
    uint32_t count = 0;
    while (count < most && !board->to_host.empty()) {
        data[count++] = board->to_host.front();
        board->to_host.pop_front();
    }
    return count;
}
