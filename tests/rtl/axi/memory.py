"""AXI4 slave in Python: a memory that checks the master's side of the protocol as it goes."""

import random
from collections import Counter, deque

WORD = 0x9E37_79B9_7F4A_7C15
READ = ("arvalid", "araddr", "arlen", "arsize", "arburst", "rready")
WRITE = ("awvalid", "awaddr", "awlen", "awsize", "awburst", "wvalid", "wdata", "wstrb", "wlast",
         "bready")


class AxiMemory:
    """Memory of ``data_bits`` wide words; words never written hold `default`.

    ``p`` is the chance, per channel and cycle, that ready or valid is given; ``bad`` beat addresses
    answer with SLVERR (even) or DECERR (odd). ``order`` "aw" takes no W before its AW, "w" no AW
    before all of its W; None takes both as they come.

    ``stop``: transfers after which a channel (ar, r, aw, w, b) stands still, as long as it is in
    there; ``moved`` counts them. ``pause``: chance of any transfer that nothing moves for so many
    cycles.
    """

    def __init__(self, data_bits, *, latency=1, p=1.0, seed=0, bad=(), order=None):
        self.bytes = data_bits // 8
        self.data_bits, self.latency, self.p = data_bits, latency, p
        self.bad, self.order = bad, order
        self.words = {}
        self.reads, self.writes = [], []        # (beat address, beats) as accepted
        self.answered = 0
        self.stop, self.moved = {}, Counter()
        self.pause, self._sleeps = (0, 0), 0    # until this cycle
        self.most = 0                           # bursts of reads under way at once
        self._rng = random.Random(seed)
        self._bursts, self._aw, self._w, self._b = deque(), deque(), deque(), deque()
        self._held = {}
        self._cycle = 0

    def default(self, address):
        copies = self.data_bits // 64
        return sum(((address * copies + i) * WORD % (1 << 64)) << 64 * i for i in range(copies))

    def word(self, address):
        return self.words.get(address, self.default(address))

    def _willing(self, channel):
        """Whether the channel moves in the next cycle."""
        awake = channel not in self.stop or self.moved[channel] < self.stop[channel]
        return self._rng.random() < self.p and awake and self._cycle >= self._sleeps

    def _move(self, channel):
        self.moved[channel] += 1
        if self.pause[0] and self._rng.random() < self.pause[0]:
            self._sleeps = self._cycle + self.pause[1]

    @property
    def owes(self):
        """Something that was accepted is not answered yet."""
        return bool(self._bursts or self._aw or self._w or self._b)

    def _stable(self, channel, valid, ready, payload):
        before = self._held.get(channel)
        assert before is None or (valid and payload == before), f"{channel} withdrawn or changed"
        self._held[channel] = payload if valid and not ready else None

    def _burst(self, address, length, size, kind):
        beats = length + 1
        assert kind == 1 and 1 << size == self.bytes and address % self.bytes == 0
        assert address // 4096 == (address + beats * self.bytes - 1) // 4096, "crosses 4 KiB"
        return address // self.bytes, beats

    def _response(self, address):
        return (2 + address % 2) if address in self.bad else 0

    def read(self, values, out):
        valid, address, length, size, kind, rready = values
        assert rready, "room was not reserved"
        self._stable("ar", valid, out["arready"], values[1:5])
        if valid and out["arready"]:
            self._move("ar")
            self.reads.append(self._burst(address, length, size, kind))
            self._bursts.append([*self.reads[-1], self._cycle + self.latency])
        if out["rvalid"]:
            self._move("r")
            out["rvalid"] = 0
            if out["rlast"]:
                self._bursts.popleft()
        self.most = max(self.most, len(self._bursts))
        out["arready"] = int(self._willing("ar"))
        if self._bursts and self._bursts[0][2] <= self._cycle + 1 and self._willing("r"):
            burst = self._bursts[0]
            out.update(rvalid=1, rdata=self.word(burst[0]), rresp=self._response(burst[0]),
                       rlast=int(burst[1] == 1))
            burst[0] += 1
            burst[1] -= 1

    def write(self, values, out):
        valid, address, length, size, kind, wvalid, wdata, wstrb, wlast, bready = values
        self._stable("aw", valid, out["awready"], values[1:5])
        self._stable("w", wvalid, out["wready"], (wdata, wstrb, wlast))
        if valid and out["awready"]:
            self._move("aw")
            self.writes.append(self._burst(address, length, size, kind))
            self._aw.append(self.writes[-1])
        if wvalid and out["wready"]:
            self._move("w")
            assert wstrb == (1 << self.bytes) - 1
            self._w.append((wdata, wlast))
        if out["bvalid"] and bready:
            self._move("b")
            out["bvalid"] = 0
            self.answered += 1
        while self._aw and len(self._w) >= self._aw[0][1]:
            first, beats = self._aw.popleft()
            response = 0
            for beat in range(beats):
                data, last = self._w.popleft()
                assert last == (beat == beats - 1)
                response = response or self._response(first + beat)
                if not response:
                    self.words[first + beat] = data
            self._b.append((self._cycle + self.latency, response))
        waiting_w = any(last for _, last in self._w)
        room_aw = self.order != "w" or waiting_w and not self._aw
        room_w = self.order != "aw" or self._aw and len(self._w) < self._aw[0][1]
        out["awready"] = int(bool(room_aw) and self._willing("aw"))
        out["wready"] = int(bool(room_w) and self._willing("w"))
        if (not out["bvalid"] and self._b and self._b[0][0] <= self._cycle + 1
                and self._willing("b")):
            out.update(bvalid=1, bresp=self._b.popleft()[1])

    def process(self, *ports, prefix=""):
        """Process that is the slave on the channels the ports have."""
        signals = {}
        for port in ports:
            for name in (*READ, *WRITE, "arready", "rvalid", "rdata", "rresp", "rlast", "awready",
                         "wready", "bvalid", "bresp"):
                if hasattr(port, prefix + name):
                    signals[name] = getattr(port, prefix + name)
        halves = [(names, step) for names, step in ((READ, self.read), (WRITE, self.write))
                  if names[0] in signals]
        names = [name for half, _ in halves for name in half]
        outputs = {name: 0 for name in signals if name not in READ + WRITE}

        async def process(ctx):
            driven = dict(outputs)
            async for _, _, *values in ctx.tick().sample(*(signals[name] for name in names)):
                at = 0
                for half, step in halves:
                    step(values[at:at + len(half)], outputs)
                    at += len(half)
                self._cycle += 1
                for name, value in outputs.items():
                    if driven[name] != value:
                        ctx.set(signals[name], value)
                driven = dict(outputs)
        return process
