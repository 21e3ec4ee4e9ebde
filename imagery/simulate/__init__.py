"""A small archive of simulated satellite scenes with known events, for the demo, the tests and the benchmarks.

>>> from imagery.simulate import demo_plan, simulate
>>> truth = simulate(Path("scenes"), demo_plan())
"""

from imagery.simulate.plan import Event, Location, Plan, demo_plan
from imagery.simulate.truth import Truth
from imagery.simulate.write import simulate

__all__ = ["Event", "Location", "Plan", "Truth", "demo_plan", "simulate"]
