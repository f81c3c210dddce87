"""Seeded order-flow simulator and stress episodes at order level."""

from microrisk.market.episodes import KINDS, Episode, Plan, random_plans, read_episodes
from microrisk.market.inject import inject
from microrisk.market.simulator import Session, simulate

__all__ = ["KINDS", "Episode", "Plan", "Session", "inject", "random_plans", "read_episodes", "simulate"]
