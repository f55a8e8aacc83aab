"""Explorers: figures with controls, for what a static picture can show only a few states of."""

from minivlm.explore.arena import arena_explorer
from minivlm.explore.base import Explorer
from minivlm.explore.connectors import queries_explorer, questions_explorer
from minivlm.explore.depths import depths_explorer
from minivlm.explore.experts import experts_explorer
from minivlm.explore.explorers import attention_explorer, budget_explorer, similarity_explorer
from minivlm.explore.frontier import frontier_explorer
from minivlm.explore.fusion import gates_explorer
from minivlm.explore.grounding import grounding_explorer
from minivlm.explore.planning import planning_explorer
from minivlm.explore.raw import raw_explorer
from minivlm.explore.resolution import canvas_explorer
from minivlm.explore.switchboard import switchboard_explorer
from minivlm.explore.video import context_explorer, frames_explorer

__all__ = [
    "Explorer",
    "arena_explorer",
    "attention_explorer",
    "budget_explorer",
    "canvas_explorer",
    "context_explorer",
    "depths_explorer",
    "experts_explorer",
    "frames_explorer",
    "frontier_explorer",
    "gates_explorer",
    "grounding_explorer",
    "planning_explorer",
    "queries_explorer",
    "questions_explorer",
    "raw_explorer",
    "similarity_explorer",
    "switchboard_explorer",
]
