"""Ratios, losses and realised edges of real runs, to three and two digits.

500 digits, (pixels - 8) / 8, on a 64-48-48-10 tanh network, one half of the squared error against
one-hot targets, full batch, seed 0: the runs that the band was taken from. Effective
sharpness by 20 warm power iterations with the preconditioner after the step.
"""

from dataclasses import dataclass

from lossgeom.stability import EdgeSeries


@dataclass(frozen=True)
class Run:
    every: int
    ratios: str
    losses: str
    realised_edges: str
    formula: str = "the threshold"
    quantity: str = "sharpness"
    status: str = "ok"
    optimizer: str = "this optimiser"


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.split()]


def series(name: str, first: int | None = None) -> EdgeSeries:
    """A run, or the first values of it."""
    run = RUNS[name]
    columns = (numbers(each)[:first] for each in (run.ratios, run.losses, run.realised_edges))
    ratios, losses, realised = columns
    return EdgeSeries(
        [run.every * i for i in range(len(losses))],
        ratios,
        losses,
        realised,
        full_batch=True,
        formula=run.formula,
        quantity=run.quantity,
        status=run.status,
        optimizer=run.optimizer,
    )


RUNS = {
    "gradient descent": Run(
        every=20,
        ratios="""
            1.33 1.1 1.11 1.18 1.13 1.16 1.19 1.14 1.2 1.21 1.12 1.15 1.14 1.15 1.12 1.1 1.14 1.08
            1.07 1.13 1.11 1.1 1.12 1.05 1.08 1.08 1.1 1.08 1.06 1.08 1.06
        """,
        losses="""
            .55 .22 .17 .15 .22 .14 .12 .12 .13 .12 .1 .11 .1 .099 .1 .086 .085 .1 .076 .072 .064
            .063 .076 .053 .06 .056 .054 .054 .049 .044 .046
        """,
        realised_edges="""
            .97 .076 .45 .94 .94 .96 1.1 .96 1.1 1 1 .97 .95 .98 .91 .92 .98 .96 1 1 .99 .99 1.1 .99
            .98 .97 1 1 .98 1 .97
        """,
        formula="2/lr",
    ),
    "gradient descent, small steps": Run(
        every=20,
        ratios="""
            .106 .0998 .101 .102 .102 .102 .103 .102 .102 .102 .101 .101 .101 .101 .1 .1 .1 .1 .101
            .104 .106 .107 .109 .11 .112 .113 .115 .116 .118 .119 .121
        """,
        losses="""
            .55 .42 .38 .35 .33 .31 .29 .27 .26 .25 .24 .23 .23 .22 .21 .21 .2 .2 .19 .19 .18 .18
            .18 .17 .17 .17 .16 .16 .16 .16 .15
        """,
        realised_edges="""
            .085 .0051 .003 .0025 .0023 .0022 .0021 .002 .0017 .0016 .0014 .0012 .0012 .0011 .00098
            .0009 .00091 .00086 .00091 .00086 .00087 .00081 .00087 .001 .00095 .00076 .00085 .001
            .00089 .00096 .0008
        """,
        formula="2/lr",
    ),
    "heavy ball": Run(
        every=20,
        ratios="""
            .782 .825 1.08 .937 1.09 .882 1.03 .934 .941 1.02 1.06 .893 .927 .953 .974 .992 1.01
            1.02 1.04 1.03 .897 .944 .948 .955 .965 .976 .986 .995 1 1.01 1.02
        """,
        losses="""
            .55 .15 .12 .11 .082 .076 .059 .071 .045 .039 .035 .032 .029 .026 .024 .022 .02 .019
            .017 .029 .015 .014 .014 .013 .012 .011 .011 .01 .0099 .0095 .0091
        """,
        realised_edges="""
            .97 .072 .03 .48 1 1.1 .12 .87 .046 .0033 .98 .44 .012 .002 .0018 .0017 .0016 .0016 .031
            1.1 .03 .0032 .0015 .0013 .0013 .0012 .0011 .0011 .001 .001 .00097
        """,
        formula="2 (1 + momentum)/lr",
    ),
    "heavy ball, momentum .9": Run(
        every=20,
        ratios="""
            .7 .868 1.02 .925 .989 1 .996 .978 .999 1 .887 .898 .925 .947 .963 .977 .988 .998 1.01
            1.01 1.02 .823 .833 .836 .858 .872 .883 .892 .9 .906 .912
        """,
        losses="""
            .55 .14 .088 .052 .035 .026 .021 .016 .014 .014 .011 .0087 .0077 .0069 .0062 .0056 .0051
            .0047 .0043 .004 .0045 .0037 .0034 .0031 .0029 .0028 .0026 .0025 .0023 .0022 .0021
        """,
        realised_edges="""
            .97 1.1 1 .58 .5 .55 .95 .4 .59 1.1 .77 .76 .026 .056 .0093 .0024 .0025 .002 .0019 .067
            1.1 3.2 .29 .92 .51 .086 .012 .0019 .0014 .0012 .0011
        """,
        formula="2 (1 + momentum)/lr",
    ),
    "heavy ball, small steps": Run(
        every=40,
        ratios="""
            .056 .0489 .0639 .0742 .0839 .0925 .0997 .105 .111 .117 .123 .13 .135 .139 .142 .144
        """,
        losses="""
            .55 .21 .15 .13 .12 .11 .094 .085 .076 .069 .063 .058 .054 .05 .047 .044
        """,
        realised_edges="""
            .085 .053 .013 .0023 .00082 .00083 .00078 .0008 .0011 .0014 .0014 .0012 .0011 .00097
            .00088 .00071
        """,
        formula="2 (1 + momentum)/lr",
    ),
    "Adam": Run(
        every=50,
        ratios="""
            1.04 .0836 .197 .356 .603 .817 1.09 .884 .905 .904 .98 .972 .982 .94 .944 1.01 .963 1
            .996 .924 .922 .891 1 .945 .999 .882 .973 .925 .982 .929 .902
        """,
        losses="""
            .55 .17 .11 .076 .049 .034 .024 .018 .013 .0099 .0075 .0058 .0046 .0036 .0029 .0024 .002
            .0017 .0014 .0013 .0011 .00094 .00089 .00075 .00065 .0006 .00055 .00048 .00045 .00041
            .00038
        """,
        realised_edges="""
            .16 .029 .003 .0047 .0046 .0035 .0033 .077 .49 .69 .26 .58 1 .76 .58 .65 .63 .57 .76 .58
            1.1 .45 .87 .96 .71 1.3 1.1 1.2 .51 .8 1.1
        """,
        formula="2 (1 + b1)/(1 - b1)",
        quantity="effective sharpness",
    ),
    "RMSprop": Run(
        every=20,
        ratios="""
            9.83 1.03 1.1 1.14 1.03 1.09 .983 1.08 1.12 .989 1.04 1.13 .958 1.16 1 1.05 1.07 1.11
            1.02 1.06 1.02 1.1 1.01 1.04 1.03 1.04 1.07 1.09 1.01 1.04 1.04
        """,
        losses="""
            .55 .21 .16 .14 .13 .11 .11 .097 .092 .085 .076 .074 .073 .062 .059 .055 .052 .054 .047
            .045 .043 .04 .04 .037 .035 .034 .033 .03 .031 .03 .027
        """,
        realised_edges="""
            .73 .041 .65 .8 .94 .95 .87 .92 1 .95 .92 .95 .92 .92 .97 .99 .93 1 .98 1 .98 .96 .97
            .98 .99 .99 1 .98 .95 1 .98
        """,
        formula="2",
        quantity="effective sharpness",
    ),
    "learning rate warmed up": Run(
        every=20,
        ratios="""
            .00443 .0872 .172 .26 .346 .427 .506 .603 .779 .949 1.13 1.34 1.16 1.13 1.18 1.35 1.11
            1.12 1.12 1.14 1.15 1.13 1.16 1.21 1.05 1.14 1.19 1.06 1.1 1.07 1.12
        """,
        losses="""
            .55 .45 .39 .33 .28 .24 .21 .18 .16 .15 .14 .13 .15 .12 .13 .16 .11 .11 .14 .1 .1 .085
            .09 .15 .079 .067 .065 .065 .061 .059 .057
        """,
        realised_edges="""
            .0035 .024 .0055 .006 .0066 .0053 .0047 .0053 .0061 .0055 .0036 .0037 1.1 .8 1.1 1 .95
            .96 1 .97 .98 1 1 1 .98 1 1.1 1 1 1 1
        """,
        formula="2/lr",
    ),
    "learning rate over ten": Run(
        every=20,
        ratios="""
            1.33 1.1 1.02 1.13 1.09 1.09 1.18 1.14 1.17 1.21 1.12 1.08 1.12 1.08 1.06 1.1 1.13 1.07
            1.07 1.13 .111 .112 .112 .113 .114 .114 .115 .116 .116 .117 .118 .118 .119 .12 .12 .121
            .122 .122 .123 .124 .124
        """,
        losses="""
            .55 .22 .17 .15 .22 .14 .12 .12 .13 .12 .1 .11 .1 .099 .1 .086 .085 .1 .076 .072 .064
            .059 .059 .058 .058 .057 .057 .057 .056 .056 .056 .056 .055 .055 .055 .054 .054 .054
            .054 .053 .053
        """,
        realised_edges="""
            .97 .076 .45 .94 .94 .96 1.1 .96 1.1 1 1 .97 .95 .98 .91 .92 .98 .96 1 1 .1 .002 .00052
            .0004 .00052 .00054 .00086 .00015 2.9e-05 .00041 .00039 -0.00013 -8.2e-05 .00011 8.4e-05
            .00027 5e-05 .00016 .00029 .0004 .00046
        """,
        formula="2/lr",
    ),
    "cosine schedule": Run(
        every=30,
        ratios="""
            1.33 1.2 1.16 .958 1.12 1.09 1.15 1.12 1.03 1.03 1.05 .978 1.01 .997 .967 .922 .859 .783
            .699 .611 .522 .435 .352 .275 .206 .145 .0935 .053 .0237 .00594 8.68e-30
        """,
        losses="""
            .55 .2 .16 .13 .12 .12 .12 .11 .098 .095 .08 .074 .069 .065 .061 .059 .057 .055 .054
            .052 .052 .051 .05 .05 .049 .049 .049 .049 .049 .049 .049
        """,
        realised_edges="""
            .97 1.1 .86 .97 .93 .98 .95 1 .97 .97 1 .95 .94 .96 .78 .0062 .00069 .00056 .00063
            .00035 .00047 .00016 .0003 .00072 -0.00041 .00076 .00095 .0009 -0.0012 .011 nan
        """,
        formula="2/lr",
    ),
    "learning rate too large": Run(
        every=1,
        ratios="""
            2.66 3.23 2.47 3.81 3.14 5.07 10.8 24.7 176 1.64e+04 -1.2e+06 -1.64e+07 4.61e+03 nan
        """,
        losses="""
            .55 1 .51 1 .64 1.7 2.1 7.5 1.5e+02 2.3e+04 4.6e+06 3.7e+06 2.1e+09 1.2e+12
        """,
        realised_edges="""
            1.6 .91 1.5 .95 1.4 1 1.1 1.2 2.4 1.1 1 1 12 nan
        """,
        formula="2/lr",
    ),
    "no known threshold": Run(
        every=20,
        ratios="",
        losses="""
            .55 .17 .13 .12 .094 .087 .073 .068 .059 .056 .05 .047 .043 .041 .038 .035 .034 .033 .03
            .028 .027 .027 .026 .024 .023 .022 .022 .021 .022 .02 .019
        """,
        realised_edges="""
            1.6 .91 .86 1 .95 1 .93 .95 .96 .97 .95 .98 .96 1 .96 .91 1 .97 .9 .83 .93 1 .98 .94 .89
            .9 .95 1 .99 .96 .93
        """,
        status="unknown",
        optimizer="Mine",
    ),
    "Rprop": Run(
        every=10,
        ratios="",
        losses="""
            .55 .25 .12 .079 .05 .035 .025 .019 .015 .013 .011 .0091 .0079 .0069 .0061 .0054 .0048
            .0044 .004 .0037 .0034 .003 .0028 .0026 .0024 .0023 .0021 .002 .0019 .0018 .0017
        """,
        realised_edges="""
            .16 .14 .48 .28 .29 .25 .31 .23 .28 .27 .2 .15 .25 .23 .32 .16 .21 .28 .31 .24 .025 .28
            .23 .26 .4 .23 .21 .13 .16 .3 .22
        """,
        status="unknown",
        optimizer="Rprop",
    ),
}

EXPECTED = {
    "gradient descent": "at the edge since step 20: sharpness 1.07 to 1.18 of 2/lr",
    "gradient descent, small steps": "below: sharpness .11 to .12 of 2/lr",
    "heavy ball": "at the edge since step 40: sharpness .90 to 1.06 of 2 (1 + momentum)/lr",
    "heavy ball, momentum .9": (
        "at the edge since step 20: sharpness .86 to 1.01 of 2 (1 + momentum)/lr"
    ),
    "heavy ball, small steps": "below: sharpness .14 of 2 (1 + momentum)/lr",
    "Adam": "at the edge since step 300: effective sharpness .89 to 1.00 of 2 (1 + b1)/(1 - b1)",
    "RMSprop": "at the edge since step 20: effective sharpness 1.00 to 1.12 of 2",
    "learning rate warmed up": (
        "at the edge since step 180: sharpness 1.06 to 1.21 of 2/lr (median 1.13)"
    ),
    "learning rate over ten": (
        "below since step 400: sharpness .12 of 2/lr; at the edge from step 20 to 380"
    ),
    "cosine schedule": (
        "below since step 510: sharpness .006 to .14 of 2/lr; at the edge from step 30 to 480"
    ),
    "learning rate too large": "diverged since step 9: the loss is 1.2e+12, and was 0.55 at first",
    "no known threshold": (
        "not stated: no threshold is known for Mine; since step 0 its steps lower the loss by "
        "little of what the slope promises, or raise it: realised edge .90 to 1.00"
    ),
    "Rprop": (
        "not stated: no threshold is known for Rprop; realised edge at most .40 in the last steps: "
        "no sign of an edge"
    ),
}
