# Zynq-7000.
set cell [create_bd_cell -type ip -vlnv xilinx.com:ip:processing_system7 ps]
apply_bd_automation -rule xilinx.com:bd_rule:processing_system7 \
    -config {make_external "FIXED_IO, DDR" apply_board_preset 1 Master Disable Slave Disable} $cell
set settings [list \
    CONFIG.PCW_USE_M_AXI_GP0 1 CONFIG.PCW_USE_FABRIC_INTERRUPT 1 CONFIG.PCW_IRQ_F2P_INTR 1 \
    CONFIG.PCW_EN_CLK0_PORT 1 CONFIG.PCW_EN_RST0_PORT 1 \
    CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ $clock_mhz]
for {set number 0} {$number < [llength $masters]} {incr number} {
    lappend settings CONFIG.PCW_USE_S_AXI_HP$number 1 \
        CONFIG.PCW_S_AXI_HP${number}_DATA_WIDTH $port_width
}
if {$memory_clock_mhz != $clock_mhz} {
    lappend settings CONFIG.PCW_EN_CLK1_PORT 1 \
        CONFIG.PCW_FPGA1_PERIPHERAL_FREQMHZ $memory_clock_mhz
}
set_property -dict $settings $cell

set clock FCLK_CLK0
set other_clock FCLK_CLK1
set reset FCLK_RESET0_N
set interrupt IRQ_F2P
set control M_AXI_GP0
set control_clock M_AXI_GP0_ACLK

proc memory_port {number} {
    return S_AXI_HP${number}
}

proc memory_clock {number} {
    return S_AXI_HP${number}_ACLK
}
