"""What the commands do, behind the surface in ``tunescope.cli``; imports are as late as they can be."""
