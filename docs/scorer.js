// How the search sorts what it finds: what users call comes before the modules that it is built from.
const INNER =
  /^api\/generated\/emroute\.(?:(?:_\w+|arrays?|backend|capability|cli|counts|family|fitting|mixtures|remarks|testing|validate)(?:\.|$)|\w+\.(?!torch$|flax$))/;
const FIRST = /^api\/generated\/emroute\.(?:gmm|kmeans)$/;

var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
  score: ([page, , , , score]) => score + FIRST.test(page) - 100 * INNER.test(page),
};
