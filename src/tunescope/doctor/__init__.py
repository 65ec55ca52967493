"""The doctor: on the user's own machine, every part of the instrument recovers truths that were planted.

``CHECKS`` names every check. :func:`tunescope.doctor.examine.examine` runs them, and
:mod:`tunescope.doctor.environment` says what is installed.
"""

from __future__ import annotations
