"""The parts that decoders are made of; each knows its stored tensors, its shards, and how a rank computes it."""
