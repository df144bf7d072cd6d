"""What everything on the platform would have cost.

instances, copies, jobs -> ledger (from when to when, of what type) x prices -> bill -> page
"""
