"""The accelerator in Amaranth; built from `model.config.AcceleratorConfig`, never loads torch."""
