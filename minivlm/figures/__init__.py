"""Figures: static matplotlib pictures of data, layouts and outputs, each with its description in words."""

from minivlm.figures.arena import duel_panels, elo_spread, misfit_matrix, rating_rows, win_matrix
from minivlm.figures.attention import attention_maps, heat_maps, picture_share, words_of_patch
from minivlm.figures.blocks import attention_distance, block_matrix
from minivlm.figures.budget import budget_bars
from minivlm.figures.common import PALETTE, show
from minivlm.figures.contrast import match_probabilities, similarity, zero_shot_bars
from minivlm.figures.depths import accuracy_against_skipping, depth_raster, passed_patches
from minivlm.figures.designs import design_map
from minivlm.figures.experts import likely_answers, moved_parts, retention, sights
from minivlm.figures.frontier import frontiers, matched, separating
from minivlm.figures.fusion import gate_curves, residual_shares, route_mosaic, sight_matrix
from minivlm.figures.grounding import boxes_drawn, said_and_seen
from minivlm.figures.lines import lines
from minivlm.figures.planning import plan_panels
from minivlm.figures.published import parameter_map, parting_lines
from minivlm.figures.queries import query_maps, query_similarity, question_maps, receptive_fields, sampling_points
from minivlm.figures.raw import panels, patch_filters, rasters
from minivlm.figures.resolution import accuracy_against_cost, encoder_views
from minivlm.figures.spaces import embedding_graphs
from minivlm.figures.speed import growth_lines, speed_bars
from minivlm.figures.swaps import neighbours, parts_map, swap_rows
from minivlm.figures.tokens import token_strip
from minivlm.figures.training import accuracy_bars, curves, picture_grid
from minivlm.figures.uses import use_panels
from minivlm.figures.video import context_bars, context_maps, film_strip, frames_in_context

__all__ = [
    "PALETTE",
    "accuracy_against_cost",
    "accuracy_against_skipping",
    "accuracy_bars",
    "attention_distance",
    "attention_maps",
    "block_matrix",
    "boxes_drawn",
    "budget_bars",
    "context_bars",
    "context_maps",
    "curves",
    "depth_raster",
    "design_map",
    "embedding_graphs",
    "duel_panels",
    "elo_spread",
    "encoder_views",
    "film_strip",
    "frames_in_context",
    "frontiers",
    "gate_curves",
    "growth_lines",
    "heat_maps",
    "likely_answers",
    "lines",
    "match_probabilities",
    "matched",
    "misfit_matrix",
    "moved_parts",
    "neighbours",
    "panels",
    "parameter_map",
    "parting_lines",
    "parts_map",
    "passed_patches",
    "patch_filters",
    "picture_grid",
    "picture_share",
    "plan_panels",
    "query_maps",
    "query_similarity",
    "question_maps",
    "rasters",
    "rating_rows",
    "receptive_fields",
    "residual_shares",
    "retention",
    "route_mosaic",
    "said_and_seen",
    "sampling_points",
    "separating",
    "show",
    "sight_matrix",
    "sights",
    "similarity",
    "speed_bars",
    "swap_rows",
    "token_strip",
    "use_panels",
    "win_matrix",
    "words_of_patch",
    "zero_shot_bars",
]
