# Packages the core as an IP in the folder ip: vivado -mode batch -source package.tcl
# Every interface is written down here; what Vivado infers of the names of the ports is not used.
source settings.tcl

proc add_interface {core name mode bus kind maps} {
    set interface [ipx::add_bus_interface $name $core]
    set_property abstraction_type_vlnv xilinx.com:$kind:${bus}_rtl:1.0 $interface
    set_property bus_type_vlnv xilinx.com:$kind:$bus:1.0 $interface
    set_property interface_mode $mode $interface
    foreach {logical physical} $maps {
        set_property physical_name $physical [ipx::add_port_map $logical $interface]
    }
    return $interface
}

proc add_parameter {interface name value} {
    set_property value $value [ipx::add_bus_parameter $name $interface]
}

proc axi_maps {prefix signals} {
    set maps {}
    foreach signal $signals {
        lappend maps [string toupper $signal] ${prefix}_$signal
    }
    return $maps
}

create_project -force ${top}_ip ip_project -part $part
add_files -norecurse $top.v
set_property top $top [current_fileset]
update_compile_order -fileset sources_1
ipx::package_project -root_dir [file normalize ip] -vendor $vendor -library $library -taxonomy /UserIP \
    -import_files -set_current true -force
set core [ipx::current_core]
set_property name $top $core
set_property version $version $core
set_property display_name $title $core
set_property description $title $core

ipx::remove_all_bus_interface $core
foreach map [ipx::get_memory_maps -of_objects $core] {
    ipx::remove_memory_map [get_property NAME $map] $core
}
foreach space [ipx::get_address_spaces -of_objects $core] {
    ipx::remove_address_space [get_property NAME $space] $core
}

foreach name $masters {
    set interface [add_interface $core $name master aximm interface [axi_maps $name $axi4]]
    add_parameter $interface DATA_WIDTH $width
    add_parameter $interface ADDR_WIDTH $addr_bits
    add_parameter $interface NUM_READ_OUTSTANDING $outstanding
    add_parameter $interface NUM_WRITE_OUTSTANDING $outstanding
    add_parameter $interface MAX_BURST_LENGTH $longest_burst
    set space [ipx::add_address_space $name $core]
    set_property range [expr {1 << $addr_bits}] $space
    set_property width $addr_bits $space
    set_property master_address_space_ref $name $interface
}

set interface [add_interface $core $slave slave aximm interface [axi_maps $slave $axi4lite]]
add_parameter $interface PROTOCOL AXI4LITE
add_parameter $interface DATA_WIDTH 32
add_parameter $interface ADDR_WIDTH $register_bits
set map [ipx::add_memory_map $slave $core]
set block [ipx::add_address_block reg0 $map]
set_property range [expr {1 << $register_bits}] $block
set_property width 32 $block
set_property usage register $block
set_property slave_memory_map_ref $slave $interface

set interface [add_interface $core aclk slave clock signal {CLK aclk}]
add_parameter $interface ASSOCIATED_BUSIF [join [concat $masters $slave] :]
add_parameter $interface ASSOCIATED_RESET aresetn
set interface [add_interface $core aresetn slave reset signal {RST aresetn}]
add_parameter $interface POLARITY ACTIVE_LOW
set interface [add_interface $core irq master interrupt signal {INTERRUPT irq}]
add_parameter $interface SENSITIVITY LEVEL_HIGH

ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity $core
ipx::save_core $core
close_project
