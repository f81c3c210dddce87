"""Order books from exchange feeds, scored event by event with integer arithmetic.

The command line is `microrisk`; the parts are imported from their own modules: `microrisk.feed.open_feed`,
`microrisk.core.Engine`, `microrisk.pipeline.{replay, features, score, convert}`, `microrisk.score.backend.open_scorer`.
"""

__version__ = "0.1.0"
