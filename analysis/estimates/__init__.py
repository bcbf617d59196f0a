"""Numbers, each with its interval, its unit of resampling and its verdict."""
