"""Stand-ins for Vivado: a Tcl interpreter in which only the commands a script may use exist.

They keep what the scripts tell them and refuse what cannot be (an unknown command, a file or a pin
that does not exist). They say nothing about what the real Vivado does with it.
"""

import tkinter
from pathlib import Path


class Tcl:
    """Interpreter whose extra commands are the methods ``do_NAME`` (``__`` for ``::``)."""

    def __init__(self):
        self.tcl = tkinter.Tcl()
        self.tcl.eval("namespace eval ipx {}")
        self.calls, self.properties, self._failure = [], {}, None
        for name in dir(self):
            if name.startswith("do_"):
                self.command(name[3:].replace("__", "::"), getattr(self, name))

    def command(self, name, function):
        def run(*words):
            self.calls.append((name, *words))
            try:
                done = function(*words)
            except Exception as failure:
                self._failure = failure
                raise
            return "" if done is None else done
        self.tcl.createcommand(name, run)

    def called(self, name):
        return [words[1:] for words in self.calls if words[0] == name]

    def words(self, text):
        return list(self.tcl.splitlist(text))

    def source(self, path):
        """Run a script in its folder; what a stand-in refused is raised as it is."""
        try:
            self.tcl.eval(f"cd {{{Path(path).parent}}}")
            self.tcl.eval(f"source {Path(path).name}")
        except tkinter.TclError:
            if self._failure is not None:
                raise self._failure from None
            raise

    def do_set_property(self, *words):
        if words[0] == "-dict":
            pairs, targets = self.words(words[1]), words[2]
        else:
            pairs, targets = list(words[:2]), words[2]
        for target in self.words(targets):
            assert target, f"set_property {words}: no object"
            for name, value in zip(pairs[::2], pairs[1::2], strict=True):
                self.properties.setdefault(target, {})[name.lower()] = value

    def do_get_property(self, name, target):
        return self.properties[target][name.lower()]

    def do_create_project(self, *words):
        assert "-part" in words and "-force" in words

    def do_add_files(self, *words):
        assert Path(words[-1]).is_file(), words[-1]

    def do_current_project(self):
        return "project"

    def do_current_fileset(self):
        return "fileset"

    def do_update_compile_order(self, *words):
        assert words == ("-fileset", "sources_1")


class Constraints(Tcl):
    """XDC: location, standard and clock of each port."""

    def do_get_ports(self, name):
        return name

    do_get_nets = do_get_ports

    def do_current_design(self):
        return "design"

    def do_create_clock(self, *words):
        options = dict(zip(words[:-1:2], words[1:-1:2], strict=True))
        self.properties.setdefault(words[-1], {})["period"] = float(options["-period"])


class Batch(Tcl):
    """What Amaranth's script for a bitstream uses."""

    NOTHING = ("place_design opt_design phys_opt_design route_design report_timing_summary "
               "report_utilization report_io report_control_sets report_clock_utilization "
               "report_route_status report_drc report_methodology report_power write_checkpoint "
               "quit").split()

    def __init__(self, setup=0.25, hold=0.05):
        super().__init__()
        self.slack = {"-setup": setup, "-hold": hold}
        for name in self.NOTHING:
            self.command(name, lambda *words: None)

    def do_read_xdc(self, name):
        assert Path(name).is_file(), name

    def do_synth_design(self, *words):
        self.top = words[words.index("-top") + 1]

    def do_get_cells(self, *words):
        return ""

    do_get_pins = do_get_cells

    def do_get_timing_paths(self, *words):
        side, = set(words) & set(self.slack)
        self.properties[f"path{side}"] = {"slack": str(self.slack[side])}
        return f"path{side}"

    def do_write_bitstream(self, *words):
        Path(words[-1]).write_text("bits")


class Packager(Tcl):
    """IP packager: interfaces with their maps and parameters, address spaces, memory maps."""

    def __init__(self):
        super().__init__()
        self.interfaces, self.spaces, self.maps, self.saved = {"guessed": None}, ["old"], ["old"], 0
        self.properties |= {"space:old": {"name": "old"}, "map:old": {"name": "old"}}

    def do_ipx__package_project(self, *words):
        options = dict(zip(words[::2], words[1::2], strict=False))
        assert Path(options["-root_dir"]) == Path("ip").resolve() and "-import_files" in words

    def do_ipx__current_core(self):
        return "core"

    def do_ipx__remove_all_bus_interface(self, core):
        self.interfaces.clear()

    def do_ipx__get_memory_maps(self, *words):
        return " ".join(f"map:{name}" for name in self.maps)

    def do_ipx__remove_memory_map(self, name, core):
        self.maps.remove(name)

    def do_ipx__get_address_spaces(self, *words):
        return " ".join(f"space:{name}" for name in self.spaces)

    def do_ipx__remove_address_space(self, name, core):
        self.spaces.remove(name)

    def do_ipx__add_bus_interface(self, name, core):
        assert core == "core" and name not in self.interfaces
        self.interfaces[name] = {"maps": {}, "parameters": {}}
        return f"interface:{name}"

    def do_ipx__add_port_map(self, logical, interface):
        maps = self.interfaces[interface.removeprefix("interface:")]["maps"]
        assert logical not in maps
        maps[logical] = f"{interface}:{logical}"
        return maps[logical]

    def do_ipx__add_bus_parameter(self, name, interface):
        held = self.interfaces[interface.removeprefix("interface:")]["parameters"]
        held[name] = f"{interface}:parameter:{name}"
        return held[name]

    def do_ipx__add_address_space(self, name, core):
        self.spaces.append(name)
        return f"space:{name}"

    def do_ipx__add_memory_map(self, name, core):
        self.maps.append(name)
        return f"map:{name}"

    def do_ipx__add_address_block(self, name, memory_map):
        assert memory_map.removeprefix("map:") in self.maps
        return f"{memory_map}:{name}"

    def do_ipx__create_xgui_files(self, core):
        assert core == "core"

    do_ipx__update_checksums = do_ipx__check_integrity = do_ipx__create_xgui_files

    def do_ipx__save_core(self, core):
        self.saved += 1

    def do_close_project(self):
        assert self.saved

    def ports(self, name):
        """Of an interface: logical to physical names."""
        return {logical: self.properties[key]["physical_name"]
                for logical, key in self.interfaces[name]["maps"].items()}

    def parameters(self, name):
        return {key: self.properties[held]["value"]
                for key, held in self.interfaces[name]["parameters"].items()}

    def of(self, name):
        return self.properties[f"interface:{name}"]
