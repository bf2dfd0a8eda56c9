"""The host in front of `AxiTop`."""

from sim.backend import CSR


class Host:
    """Register access by AXI4-Lite."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut

    async def _channels(self, *channels):
        """Offer on all at once; each ends with its own handshake."""
        ctx, dut = self.ctx, self.dut
        waiting = set(channels)
        for channel in channels:
            ctx.set(getattr(dut, f"s_axi_{channel}valid"), 1)
        while waiting:
            names = sorted(waiting)
            _, _, *ready = await ctx.tick().sample(
                *(getattr(dut, f"s_axi_{name}ready") for name in names))
            for name, taken in zip(names, ready, strict=True):
                if taken:
                    ctx.set(getattr(dut, f"s_axi_{name}valid"), 0)
                    waiting.discard(name)

    async def _answer(self, channel, *values):
        ctx, dut = self.ctx, self.dut
        ctx.set(getattr(dut, f"s_axi_{channel}ready"), 1)
        got = await ctx.tick().sample(*values).until(getattr(dut, f"s_axi_{channel}valid"))
        ctx.set(getattr(dut, f"s_axi_{channel}ready"), 0)
        return got

    async def write(self, name, value):
        self.ctx.set(self.dut.s_axi_awaddr, 4 * CSR[name])
        self.ctx.set(self.dut.s_axi_wdata, value)
        self.ctx.set(self.dut.s_axi_wstrb, 15)
        await self._channels("aw", "w")
        assert await self._answer("b", self.dut.s_axi_bresp) == (0,)

    async def read(self, name):
        self.ctx.set(self.dut.s_axi_araddr, 4 * CSR[name])
        await self._channels("ar")
        data, response = await self._answer("r", self.dut.s_axi_rdata, self.dut.s_axi_rresp)
        assert response == 0
        return data

    async def command(self, control):
        """Status at the interrupt."""
        await self.write("control", 4)
        await self.ctx.tick().repeat(2)
        assert not self.ctx.get(self.dut.irq)
        await self.write("control", control)
        await self.ctx.tick().until(self.dut.irq)
        return await self.read("status")
