"""Scoring recordings with trained networks: frame logits, chunk by chunk, no threshold involved."""

from otus.inference.shard import ShardModel, ShardResult, predict_shard

__all__ = ["ShardModel", "ShardResult", "predict_shard"]
