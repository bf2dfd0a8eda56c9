# Zynq UltraScale+: HP0 is what the IP's parameters call S_AXI_GP2.
set cell [create_bd_cell -type ip -vlnv xilinx.com:ip:zynq_ultra_ps_e ps]
apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e \
    -config {apply_board_preset 1} $cell
set settings [list \
    CONFIG.PSU__USE__M_AXI_GP0 1 CONFIG.PSU__USE__M_AXI_GP1 0 CONFIG.PSU__USE__M_AXI_GP2 0 \
    CONFIG.PSU__USE__IRQ0 1 CONFIG.PSU__FPGA_PL0_ENABLE 1 \
    CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ $clock_mhz]
for {set number 0} {$number < [llength $masters]} {incr number} {
    set port [expr {$number + 2}]
    lappend settings CONFIG.PSU__USE__S_AXI_GP$port 1 CONFIG.PSU__SAXIGP${port}__DATA_WIDTH $port_width
}
if {$memory_clock_mhz != $clock_mhz} {
    lappend settings CONFIG.PSU__FPGA_PL1_ENABLE 1 \
        CONFIG.PSU__CRL_APB__PL1_REF_CTRL__FREQMHZ $memory_clock_mhz
}
set_property -dict $settings $cell

set clock pl_clk0
set other_clock pl_clk1
set reset pl_resetn0
set interrupt pl_ps_irq0
set control M_AXI_HPM0_FPD
set control_clock maxihpm0_fpd_aclk

proc memory_port {number} {
    return S_AXI_HP${number}_FPD
}

proc memory_clock {number} {
    return saxihp${number}_fpd_aclk
}
