"""Automatic choices: batch size, learning rate, feature cache, compiling; what training costs."""
