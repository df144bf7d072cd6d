"""Inference components: copies of a container on the instances of a variant, as many as were asked for, down to none.

components -> pool      whether a copy fits, and where
     `-> copies         the containers themselves
yard                    the instances below: come for a copy that fits nowhere, go when they have been empty
"""
