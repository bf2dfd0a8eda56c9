"""The host link: UART, framing, and the execution of commands on registers and memory."""
