"""Grid, backbones, embeddings, linear probes and the table they fill."""
