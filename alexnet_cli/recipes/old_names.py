"""Names of hyperparameters and variants that were renamed, so that an old name is answered with the new one."""

# Old → new; of a layer's hyperparameter, as `conv2.then`, the part behind the dot.
HYPERPARAMETERS = {
    "stored_size": "resize_size",
    "squash": "stretch",
    "subtract": "mean",
    "centroids": "kmeans_init",
    "colour_noise": "color_noise",
    "then": "post_ops",
}

VARIANTS = {"no-colour-noise": "no-color-noise"}
