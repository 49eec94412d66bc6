"""VGG for adaptzoo: see zoo.yaml."""
