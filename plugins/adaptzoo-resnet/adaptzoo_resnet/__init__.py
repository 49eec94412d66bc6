"""ResNet and relatives for adaptzoo: see zoo.yaml."""
