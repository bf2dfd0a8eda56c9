"""The accelerator in Amaranth; built from `model.config.AcceleratorConfig`, never loads torch."""

__version__ = "0.1.0"
