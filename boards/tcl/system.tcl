# The core beside the processors, to a bitstream: vivado -mode batch -source system.tcl
# After package.tcl. What differs between the families of Zynq is in processors.tcl.
source settings.tcl

set board [lindex [get_board_parts -quiet -latest_file_version $board_files] 0]
if {$board eq ""} {
    error "this Vivado has no board files for $board_files: install them (Tools, Vivado Store)"
}
create_project -force $name project -part $part
set_property board_part $board [current_project]
set_property ip_repo_paths [file normalize ip] [current_project]
update_ip_catalog
create_bd_design system

proc pins {args} {
    set found {}
    foreach name $args {
        lappend found [get_bd_pins $name]
    }
    return $found
}

proc connect_pins {from args} {
    foreach pin [pins {*}$args] {
        connect_bd_net [get_bd_pins $from] $pin
    }
}

proc connect_bus {from to} {
    connect_bd_intf_net [get_bd_intf_pins $from] [get_bd_intf_pins $to]
}

# Defines what the processors' pins are called: clock, reset, interrupt; control and its clock;
# memory_port and memory_clock of a number, and the other clock that these may have.
source processors.tcl
set memory_side [expr {$memory_clock_mhz == $clock_mhz ? $clock : $other_clock}]

create_bd_cell -type ip -vlnv $vendor:$library:$top:$version core
create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset resets
connect_pins ps/$clock core/aclk resets/slowest_sync_clk ps/$control_clock
connect_pins ps/$reset resets/ext_reset_in
connect_pins resets/peripheral_aresetn core/aresetn
connect_pins core/irq ps/$interrupt

# A SmartConnect for each bus: AXI4 to what the processors' port speaks, its width and its clock.
proc add_bridge {name from to far_clock} {
    global clock
    set cell [create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect $name]
    set clocks [expr {$far_clock eq $clock ? 1 : 2}]
    set_property -dict [list CONFIG.NUM_SI 1 CONFIG.NUM_MI 1 CONFIG.NUM_CLKS $clocks] $cell
    connect_pins ps/$clock $name/aclk
    if {$clocks == 2} {
        connect_pins ps/$far_clock $name/aclk1
    }
    connect_pins resets/interconnect_aresetn $name/aresetn
    connect_bus $from $name/S00_AXI
    connect_bus $name/M00_AXI $to
}

add_bridge registers_bus ps/$control core/$slave $clock
set number 0
foreach master $masters {
    connect_pins ps/$memory_side ps/[memory_clock $number]
    add_bridge memory_bus$number core/$master ps/[memory_port $number] $memory_side
    incr number
}

assign_bd_address -offset $registers -range [expr {1 << $register_bits}] \
    -target_address_space [get_bd_addr_spaces ps/Data] \
    [get_bd_addr_segs core/$slave/reg0] -force
assign_bd_address
validate_bd_design
save_bd_design

set design [get_files system.bd]
add_files -norecurse [make_wrapper -files $design -top]
set_property top system_wrapper [current_fileset]
update_compile_order -fileset sources_1
launch_runs impl_1 -to_step write_bitstream -jobs 4
wait_on_run impl_1
set run [get_runs impl_1]
if {[get_property PROGRESS $run] ne "100%"} {
    error "implementation ended with: [get_property STATUS $run]"
}
set setup [get_property STATS.WNS $run]
set hold [get_property STATS.WHS $run]
set file [open $name.slack w]
puts $file "$setup $hold"
close $file
if {$setup < 0 || $hold < 0} {
    error "timing does not close: slack of setup $setup ns, of hold $hold ns"
}
write_hw_platform -fixed -include_bit -force $name.xsa
file copy -force [get_property DIRECTORY $run]/system_wrapper.bit $name.bit
