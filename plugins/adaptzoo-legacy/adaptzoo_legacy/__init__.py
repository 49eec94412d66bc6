"""AlexNet and GoogLeNet as timm architectures: `import adaptzoo_legacy.models` registers them."""
