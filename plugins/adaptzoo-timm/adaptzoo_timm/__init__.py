"""Every timm architecture for adaptzoo: see zoo.yaml."""
