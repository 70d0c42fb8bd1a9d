"""Presets: points of the one equation, each described in `conf/op/<name>.yaml`."""

from ablate.ops.registry import register_preset

register_preset("lsa", paper="Swin Transformer, Liu et al., ICCV", year=2021)
register_preset("lsa_neighborhood", paper="Neighborhood Attention Transformer, Hassani et al., CVPR", year=2023)
register_preset("dwconv", paper="On the Connection between Local Attention and DW-Conv, Han et al., ICLR", year=2022)
register_preset("dynamic_filter", paper="Dynamic Filter Networks, Jia et al., NeurIPS", year=2016)
register_preset("involution", paper="Involution, Li et al., CVPR", year=2021)
register_preset("elsa", paper="ELSA, Zhou et al., arXiv 2112.12786, official code", year=2021)
register_preset("elsa_equation", paper="ELSA, Zhou et al., arXiv 2112.12786, equation", year=2021)
