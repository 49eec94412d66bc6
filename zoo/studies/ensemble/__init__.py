"""Several adapted models as one: a soup of their weights, or a model that combines what they say."""
