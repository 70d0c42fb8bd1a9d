"""Presets: points of the one equation, each described in `conf/op/<name>.yaml`."""

from ablate.ops.registry import register_preset

register_preset("lsa", paper="Swin, Liu et al.", year=2021)
register_preset("lsa_neighborhood", paper="after NAT, Hassani et al.", year=2023)
register_preset("dwconv", paper="DWNet, Han et al.", year=2022)
register_preset("dynamic_filter", paper="Jia et al.", year=2016)
register_preset("involution", paper="Li et al.", year=2021)
register_preset("elsa", paper="ELSA, Zhou et al., code", year=2021)
register_preset("elsa_equation", paper="ELSA, Zhou et al., equation", year=2021)
