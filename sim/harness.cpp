// Verilated core with its memory, behind a small C interface for ctypes.
//
// The memory model is the twin of sim/memory.py: same options, same cycle count.

#include <algorithm>
#include <cstdint>
#include <deque>
#include <vector>

#include "Vtop.h"
#include "probes.h"
#include "verilated.h"
#if TRACE_KIND == 1
#include "verilated_vcd_c.h"
using Trace = VerilatedVcdC;
#elif TRACE_KIND == 2
#include "verilated_fst_c.h"
using Trace = VerilatedFstC;
#endif

// Verilator writes a double underscore in a port's name as ___05F.
#define PORT2_(a, b) a##___05F##b
#define PORT2(a, b) PORT2_(a, b)
#define PORT3(a, b, c) a##___05F##b##___05F##c

namespace {

constexpr uint32_t STATUS = 4, BUSY = 1;
constexpr int READ_LATENCY = 3;     // of a register, see rtl/csr.py
constexpr uint32_t BEAT = 1 << 16;  // units of bandwidth that a beat takes

struct Options {
    uint32_t latency, threshold, rate, gap_period, gap_length, outstanding, answer;
    uint32_t seeds[3];
    uint32_t record;
};

struct Request {
    uint32_t addr, beats;
    uint64_t due;
};

struct Answer {
    uint64_t due;
    bool error;
};

struct Probe {
    std::vector<uint64_t> cycle;
    std::vector<uint32_t> payload;
    uint32_t words = 0;
};

void append(std::vector<uint32_t> &out, uint8_t value) { out.push_back(value); }
void append(std::vector<uint32_t> &out, uint16_t value) { out.push_back(value); }
void append(std::vector<uint32_t> &out, uint32_t value) { out.push_back(value); }
void append(std::vector<uint32_t> &out, uint64_t value) {
    out.push_back(uint32_t(value));
    out.push_back(uint32_t(value >> 32));
}
template <std::size_t N> void append(std::vector<uint32_t> &out, const VlWide<N> &value) {
    for (std::size_t i = 0; i < N; ++i) out.push_back(value[i]);
}
template <class T> constexpr uint32_t words_of(const T &) { return sizeof(T) <= 4 ? 1 : sizeof(T) / 4; }

struct Sim {
    VerilatedContext context;
    Vtop top{&context};
    // 64-bit words of a beat; both payloads are wider than a beat and so of 32-bit words.
    static constexpr uint32_t WORDS = (sizeof(top.PORT3(mem, r, payload)) / 4 - 1) / 2;
    Options options;
    uint64_t *memory;
    uint64_t size;      // beats
    uint64_t cycle = 0, faults = 0;
    // Failures to come (-1: none), and what has been done since they were asked for.
    int64_t error_beat = -1, error_write = -1, stop = -1;
    int64_t beats = 0, writes = 0, transfers = 0;
    uint32_t random[3];
    uint32_t tokens[2] = {0, 0};  // bandwidth saved up: reads, writes
    bool r_valid = false, answering = false;
    std::deque<Request> requests;
    std::deque<Answer> answers;  // to writes
    Probe probes[PROBE_COUNT];
#if TRACE_KIND
    Trace trace;
    bool tracing = false;
    void dump(uint64_t time) { if (tracing) trace.dump(time); }
#else
    void dump(uint64_t) {}
#endif

    Sim(const Options &chosen, uint64_t *data, uint64_t beats_held)
        : options(chosen), memory(data), size(beats_held) {
        for (int i = 0; i < 3; ++i) random[i] = options.seeds[i];
#define WIDTH(index, name) probes[index].words = words_of(top.PORT2(name, payload));
        PROBES(WIDTH)
#undef WIDTH
        top.clk = 0;
        top.rst = 0;
        top.csr_w_en = 0;
        top.PORT2(mem, alive) = 0;
        drive(false, false);
    }

    void drive(bool ar_ready, bool w_ready) {
        top.PORT3(mem, ar, ready) = ar_ready;
        top.PORT3(mem, r, valid) = r_valid;
        top.PORT3(mem, w, ready) = w_ready;
        top.PORT2(mem, w_busy) = !answers.empty();
        top.PORT2(mem, w_error) = answering && answers.front().error;
    }

    bool stall(int channel) {
        if (options.threshold == 0) return false;
        uint32_t &state = random[channel];
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        return state < options.threshold;
    }

    template <class T> void record(Probe &probe, bool valid, const T &payload) {
        if (!valid || !options.record) return;
        probe.cycle.push_back(cycle);
        append(probe.payload, payload);
    }

    void present() {
        Request &request = requests.front();
        bool error = beats++ == error_beat;
        const bool inside = request.addr < size;
        if (!inside) {
            error = true;
            ++faults;
        }
        auto &payload = top.PORT3(mem, r, payload);
        for (uint32_t i = 0; i < WORDS; ++i) {
            const uint64_t word = inside ? memory[uint64_t(request.addr) * WORDS + i] : 0;
            payload[2 * i] = uint32_t(word);
            payload[2 * i + 1] = uint32_t(word >> 32);
        }
        ++request.addr;
        const bool last = --request.beats == 0;
        payload[2 * WORDS] = uint32_t(last) | uint32_t(error) << 1;
        if (last) requests.pop_front();
        r_valid = true;
    }

    // One clock cycle: settle, take the transfers, edge, drive the next cycle's inputs.
    void step() {
        top.clk = 0;
        top.eval();
        dump(10 * cycle);
        if (top.PORT3(mem, ar, valid) && top.PORT3(mem, ar, ready)) {
            const uint64_t payload = top.PORT3(mem, ar, payload);
            requests.push_back({uint32_t(payload), uint32_t(payload >> 32) + 1,
                                cycle + options.latency});
            ++transfers;
        }
        if (r_valid && top.PORT3(mem, r, ready)) {
            r_valid = false;
            ++transfers;
        }
        if (answering) {
            answers.pop_front();
            ++transfers;
        }
        if (top.PORT3(mem, w, valid) && top.PORT3(mem, w, ready)) {
            const auto &payload = top.PORT3(mem, w, payload);
            tokens[1] -= BEAT;
            ++transfers;
            if (options.answer) answers.push_back({cycle + options.answer, writes == error_write});
            ++writes;
            if (payload[0] < size) {
                for (uint32_t i = 0; i < WORDS; ++i)
                    memory[uint64_t(payload[0]) * WORDS + i] =
                        payload[2 * i + 1] | uint64_t(payload[2 * i + 2]) << 32;
            } else {
                ++faults;
            }
        }
#define RECORD(index, name) \
    record(probes[index], top.PORT2(name, valid), top.PORT2(name, payload));
        PROBES(RECORD)
#undef RECORD
        top.clk = 1;
        top.eval();
        dump(10 * cycle + 5);
        ++cycle;
        // No more than the beat that is waiting and a fraction of the next is saved up.
        for (uint32_t &saved : tokens) saved = std::min(saved + options.rate, 2 * BEAT - 1);
        const bool awake =
            cycle % options.gap_period < options.gap_period - options.gap_length &&
            (stop < 0 || transfers < stop);
        const bool stall_ar = stall(0), stall_r = stall(1), stall_w = stall(2);
        const bool ar_ready = awake && !stall_ar && requests.size() < options.outstanding;
        const bool w_ready = awake && !stall_w && tokens[1] >= BEAT;
        if (!r_valid && awake && !stall_r && tokens[0] >= BEAT && !requests.empty() &&
            requests.front().due <= cycle) {
            tokens[0] -= BEAT;
            present();
        }
        answering = awake && !answers.empty() && answers.front().due <= cycle;
        drive(ar_ready, w_ready);
    }
};

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT Sim *sim_new(const Options *options, uint64_t *memory, uint64_t beats) {
    return new Sim(*options, memory, beats);
}

EXPORT void sim_delete(Sim *sim) {
#if TRACE_KIND
    if (sim->tracing) sim->trace.close();
#endif
    sim->top.final();
    delete sim;
}

EXPORT int sim_trace(Sim *sim, const char *path) {
#if TRACE_KIND
    sim->context.traceEverOn(true);
    sim->top.trace(&sim->trace, 99);
    sim->trace.open(path);
    sim->tracing = sim->trace.isOpen();
    return sim->tracing;
#else
    (void)sim, (void)path;
    return 0;
#endif
}

EXPORT void sim_inject(Sim *sim, int64_t error_beat, int64_t error_write, int64_t stop) {
    sim->error_beat = error_beat;
    sim->error_write = error_write;
    sim->stop = stop;
    sim->beats = sim->writes = sim->transfers = 0;
}

EXPORT void sim_reset(Sim *sim) {
    // Two edges: in an ECP5 netlist some units have their reset a cycle later (rtl/core.py).
    sim->top.rst = 1;
    sim->step();
    sim->step();
    sim->top.rst = 0;
    sim->requests.clear();
    sim->answers.clear();
    sim->r_valid = sim->answering = false;
    sim->drive(false, false);
}

EXPORT void sim_csr_write(Sim *sim, uint32_t addr, uint32_t value) {
    sim->top.csr_addr = addr;
    sim->top.csr_w_data = value;
    sim->top.csr_w_en = 1;
    sim->step();
    sim->top.csr_w_en = 0;
}

EXPORT uint32_t sim_csr_read(Sim *sim, uint32_t addr) {
    sim->top.csr_addr = addr;
    for (int i = 0; i < READ_LATENCY; ++i) sim->step();
    return sim->top.csr_r_data;
}

// Steps until not busy; the first cycles are not trusted, the command is still on its way.
EXPORT int sim_wait_idle(Sim *sim, uint64_t max_cycles) {
    sim->top.csr_addr = STATUS;
    for (int i = 0; i < 4; ++i) sim->step();
    for (uint64_t i = 0; i < max_cycles; ++i) {
        if (!(sim->top.csr_r_data & BUSY)) return 1;
        sim->step();
    }
    return 0;
}

EXPORT uint64_t sim_cycle(Sim *sim) { return sim->cycle; }
EXPORT uint64_t sim_faults(Sim *sim) { return sim->faults; }

EXPORT uint64_t sim_events(Sim *sim, int index, const uint64_t **cycle, const uint32_t **payload,
                           uint32_t *words) {
    Probe &probe = sim->probes[index];
    *cycle = probe.cycle.data();
    *payload = probe.payload.data();
    *words = probe.words;
    return probe.cycle.size();
}

EXPORT void sim_clear_events(Sim *sim) {
    for (Probe &probe : sim->probes) {
        probe.cycle.clear();
        probe.payload.clear();
    }
}
