"""Scoring recordings with a trained network: dense frame logits, chunk by chunk, no threshold involved."""

from otus.inference.shard import ShardResult, predict_shard

__all__ = ["ShardResult", "predict_shard"]
