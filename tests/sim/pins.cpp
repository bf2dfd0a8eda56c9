// A top with the pins clk, rst, i and o, one clock cycle at a time: Verilated or a netlist.

#include <cstring>

#include "Vtop.h"
#include "verilated.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

struct Design {
    VerilatedContext context;
    Vtop top{&context};
};

EXPORT Design *pins_new() {
    Design *design = new Design;
    design->top.clk = 0;
    design->top.rst = 0;
    return design;
}

EXPORT void pins_delete(Design *design) {
    design->top.final();
    delete design;
}

// Outputs of a cycle with these inputs, before its clock edge.
EXPORT void pins_step(Design *design, const void *in, void *out, int reset) {
    Vtop &top = design->top;
    std::memcpy(&top.i, in, sizeof top.i);
    top.rst = reset;
    top.clk = 0;
    top.eval();
    std::memcpy(out, &top.o, sizeof top.o);
    top.clk = 1;
    top.eval();
}
