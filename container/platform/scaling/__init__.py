"""Application Auto Scaling and the alarms that drive it.

metrics -> alarms (evaluated every minute, or every 10 s) -> policy -> target -> desired count of a variant or component
                                                 schedule -> target -^          `-> activities
"""
