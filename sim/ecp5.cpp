// A synthesised ECP5 netlist with the face of a Verilated top, so that harness.cpp and board.cpp take
// either. netlist.h, written by sim/ecp5.py, has the tables and the ports.

#include "Vtop.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace {

// A look-up table of four nets, or one of the cells below.
enum Kind : uint32_t { LUT, RAM, MULT };
struct Node {
    uint32_t in[4], out, table, kind;   // RAM, MULT: ``table`` is its place in the list
};
struct FlipFlop {
    uint32_t q, d, ce, lsr, flags;      // flags: 1 begins as (and is set to) 1, 2 inverts CE, 4 LSR
};
struct LutRam {
    uint32_t di[4], wad[4], wre, rad[4], out[4], init[2];
};
struct Multiplier {
    uint32_t a[18], b[18], signed_a, signed_b, p[36];
};
// Modes of a write for the same port's output: unchanged, the new word, the old one.
enum Mode : uint32_t { NORMAL, WRITETHROUGH, READBEFOREWRITE };
struct Port {
    uint32_t address[14], data[18], out[18], ce, we, width, mode;
};
struct BlockRam {
    Port port[2];
    uint32_t init;                      // first of its 512 rows in ROWS, or ~0 for zeros
};
struct Pins {
    void *data;
    uint32_t first, bits;               // of PINS
};

#include "netlist.h"

using Rows = std::array<uint64_t, 512>;  // of 36 bits
constexpr uint64_t ROW = (uint64_t(1) << 36) - 1;

uint64_t gather(const uint8_t *nets, const uint32_t *from, int count) {
    uint64_t value = 0;
    for (int i = 0; i < count; ++i) value |= uint64_t(nets[from[i]]) << i;
    return value;
}

void scatter(uint8_t *nets, const uint32_t *to, int count, uint64_t value) {
    for (int i = 0; i < count; ++i) nets[to[i]] = value >> i & 1;
}

// What a port does in a cycle: bits of a row from ``shift`` on, those it writes, and with what.
struct Access {
    bool active, write;
    uint32_t row, shift;
    uint64_t field, mask, data;

    Access(const uint8_t *nets, const Port &port, const Port &other) {
        const uint32_t address = gather(nets, port.address, 14);
        active = nets[port.ce];
        write = active && nets[port.we];
        row = address >> 5;
        data = gather(nets, port.data, 18);
        field = (uint64_t(1) << port.width) - 1;
        switch (port.width) {
        case 36:
            data |= gather(nets, other.data, 18) << 18;
            shift = 0;
            mask = bytes(address, 4);
            break;
        case 18:
            shift = (address >> 4 & 1) * 18;
            mask = bytes(address, 2) << shift;
            break;
        default:    // the ninth bit of a byte is only there for 9, 18 and 36
            shift = (address >> 3 & 3) * 9 + (port.width < 9 ? address & 7 & -port.width : 0);
            mask = field << shift;
        }
        data = data << shift & mask;
        if (!write) mask = data = 0;
    }

    static uint64_t bytes(uint32_t enables, int count) {
        uint64_t mask = 0;
        for (int i = 0; i < count; ++i) mask |= (enables >> i & 1 ? uint64_t(511) : 0) << 9 * i;
        return mask;
    }
};

}  // namespace

struct Engine {
    std::vector<uint8_t> nets = std::vector<uint8_t>(NETS);
    std::vector<uint8_t> next = std::vector<uint8_t>(FLIPFLOP_COUNT);
    std::vector<std::array<uint8_t, 16>> rams = std::vector<std::array<uint8_t, 16>>(RAM_COUNT);
    std::vector<Rows> blocks = std::vector<Rows>(BLOCK_COUNT);
    bool clock = false, stale = true;

    Engine() {
        nets[1] = 1;
        for (size_t i = 0; i < FLIPFLOP_COUNT; ++i) nets[FLIPFLOPS[i].q] = FLIPFLOPS[i].flags & 1;
        for (size_t i = 0; i < RAM_COUNT; ++i)
            for (int word = 0; word < 16; ++word)
                rams[i][word] = RAMS[i].init[word / 8] >> 4 * (word % 8) & 15;
        for (size_t i = 0; i < BLOCK_COUNT; ++i)
            if (BLOCKS[i].init != ~0u) std::copy_n(ROWS + BLOCKS[i].init, 512, blocks[i].begin());
    }

    void settle() {
        uint8_t *const v = nets.data();
        for (size_t i = 0; i < NODE_COUNT; ++i) {
            const Node &node = NODES[i];
            if (node.kind == LUT) {
                v[node.out] = node.table >> (v[node.in[0]] | v[node.in[1]] << 1 |
                                             v[node.in[2]] << 2 | v[node.in[3]] << 3) & 1;
            } else if (node.kind == RAM) {
                const LutRam &ram = RAMS[node.table];
                scatter(v, ram.out, 4, rams[node.table][gather(v, ram.rad, 4)]);
            } else {
                multiply(v, MULTS[node.table]);
            }
        }
    }

    static void multiply(uint8_t *v, const Multiplier &mult) {
        int64_t a = gather(v, mult.a, 18), b = gather(v, mult.b, 18);
        if (v[mult.signed_a] && a >> 17) a -= 1 << 18;
        if (v[mult.signed_b] && b >> 17) b -= 1 << 18;
        scatter(v, mult.p, 36, uint64_t(a * b));
    }

    void edge() {
        uint8_t *const v = nets.data();
        for (size_t i = 0; i < RAM_COUNT; ++i)
            if (v[RAMS[i].wre]) rams[i][gather(v, RAMS[i].wad, 4)] = gather(v, RAMS[i].di, 4);
        for (size_t i = 0; i < FLIPFLOP_COUNT; ++i) {
            const FlipFlop &ff = FLIPFLOPS[i];
            const bool reset = v[ff.lsr] ^ (ff.flags >> 2 & 1), ce = v[ff.ce] ^ (ff.flags >> 1 & 1);
            next[i] = reset ? ff.flags & 1 : ce ? v[ff.d] : v[ff.q];
        }
        // Outputs of block RAMs may be inputs of others: all accesses first.
        pending.clear();
        for (size_t i = 0; i < BLOCK_COUNT; ++i) access(i);
        for (size_t i = 0; i < FLIPFLOP_COUNT; ++i) v[FLIPFLOPS[i].q] = next[i];
        for (const Output &out : pending) out.put(v);
    }

    void access(size_t index) {
        const BlockRam &block = BLOCKS[index];
        const Access a(nets.data(), block.port[0], block.port[1]);
        const Access b(nets.data(), block.port[1], block.port[0]);
        Rows &rows = blocks[index];
        const uint64_t old_a = rows[a.row], old_b = rows[b.row];
        output(block.port[0], block.port[1], a, old_a, a.row == b.row ? b.mask : 0);
        output(block.port[1], block.port[0], b, old_b, a.row == b.row ? a.mask : 0);
        rows[a.row] = (rows[a.row] & ~a.mask) | a.data;
        rows[b.row] = (rows[b.row] & ~b.mask) | b.data;
        // Both wrote the same bits: undefined.
        if (a.row == b.row) rows[a.row] ^= a.mask & b.mask;
    }

    // A port's output after the edge. Where the other port writes a bit that is read, the word is
    // undefined: it comes inverted, so that a design that looks at it computes something else.
    void output(const Port &port, const Port &other, const Access &mine, uint64_t old,
                uint64_t theirs) {
        if (!mine.active || (mine.write && port.mode == NORMAL)) return;
        uint64_t word = port.mode == WRITETHROUGH ? (old & ~mine.mask) | mine.data : old;
        if (theirs & mine.field << mine.shift) word = ~word & ROW;
        word = word >> mine.shift & mine.field;
        if (port.width == 36) {
            // Written over A, read over both: A has the lower half.
            pending.push_back({other.out, word & 0x3ffff});
            word >>= 18;
        }
        pending.push_back({port.out, word});
    }

    struct Output {
        const uint32_t *to;
        uint64_t value;
        void put(uint8_t *v) const { scatter(v, to, 18, value); }
    };
    std::vector<Output> pending;
};

Vtop::Vtop(VerilatedContext *) : engine(new Engine) {}
Vtop::~Vtop() { delete engine; }

void Vtop::eval() {
    Engine &own = *engine;
    if (clk && !own.clock) {
        own.edge();
        own.stale = true;
    }
    own.clock = clk;
    uint8_t *const v = own.nets.data();
    const auto inputs = in_ports(this);
    for (const Pins &port : inputs)
        for (uint32_t i = 0; i < port.bits; ++i) {
            const uint8_t bit = static_cast<uint8_t *>(port.data)[i / 8] >> i % 8 & 1;
            uint8_t &net = v[PINS[port.first + i]];
            own.stale |= net != bit;
            net = bit;
        }
    if (!own.stale) return;
    own.settle();
    own.stale = false;
    for (const Pins &port : out_ports(this)) {
        uint8_t *const bytes = static_cast<uint8_t *>(port.data);
        std::memset(bytes, 0, (port.bits + 7) / 8);
        for (uint32_t i = 0; i < port.bits; ++i) bytes[i / 8] |= v[PINS[port.first + i]] << i % 8;
    }
}

// Let a look-up table give the opposite from now on, or again what it should.
extern "C" __attribute__((visibility("default"))) void netlist_invert(uint32_t node) {
    NODES[node].table ^= 0xffff;
}
