"""Words that may stand behind a number and say of what it is, and nothing of how much.

What MATH's references count, and what "how many" asks for at least twice in the questions of MATH
and GSM8K, read through for words that change a number. Without the s of the plural.
"""

KNOWN = frozenset(
  """
  acorn adult album alligator angle animal answer ant app apple arrangement article asymptote
  attendee babie bacon bacteria badge bag bale ball balloon banana band bandage bar barrel
  baseball basket basketball batche bead beaker bean beat bed bee berrie bill bird biscuit bit
  black block blue blueberrie blueberry boat bolt bone book bottle bounce bouquet box boxe boy
  bracelet branche brick brother brownie bug bulb bushe bushel butterflie button byte cake call
  calorie camper can candie candle candy canoe cap car card carnation carrot carton case cat
  cell centurie century chair cheese cherry chicken child children chip chocolate choice chore
  circle classe clothe cloud coat cob code coffee coin collection color colored column
  combination comic committee cone consecutive container cookie copie corn correct cow cracker
  crate crayon cream cricket cube cucumber cup cupcake customer daisie dap date daughter decade
  decoration dessert diagonal dice different digit dime dishe distinct distinguishable divisor
  dog doll donut door doughnut drawing dresse driveway duck each ear earring edge egg element
  email employee empty envelope episode equilateral eraser eye face factor fathom female figure
  file firework fish fishe flag flavor flea flie flight floor flower flyer follower foreign
  fresh frie friend frog fruit function furlong game geese gem gemstone gift girl
  glasse gnome goal goat gold goldfish golf grain grandchildren grape green group guest gumball
  guppie hamburger handshake hat hectare hertz hit hole home horse hotdog house ice individual
  insect instance integer interior isoscele it item jar jean jelly jellybean jellyfish jewel
  joule jump kelvin key kid kilo kilowatt kind kitten lamb lap large lattice leave left leg lego
  lemon length letter level license light limb line lineup lion list load loave log lollipop
  machine magazine male man mangoe marble marshmallow mask matche matchstick meal meatball medal
  member men message mice millisecond minnow mistake movie muffin mug multiple mushroom musician
  nail natural necklace new newspaper newton nickel night nonnegative notebook novel number nut
  object ohm old older onion orange ordered outcome outfit oyster pack package packet page
  painting palindrome pancake papaya paper paperclip parent parking pascal passenger pastrie
  path patient pattern peache peanut pebble pen pencil pennie penny people pepper per
  permutation person peso pet petal phone photo picture pie piece pigeon pill pillow pin pink
  pizza plank plant plate player plum point polygon polynomial poodle popsicle portion portrait
  positive possibilitie possible poster pot potatoe present prime problem pupil puppie puzzle
  quadrilateral question rabbit rat real recipe rectangle red region report revolution right
  rock rod roll room root rose round route row rubber run rupee sandwiche saucer sausage scarve
  scoop seashell seat seating section seed segment sequence serving session set setting shark
  sheep sheet shell shelve shirt shoe side sighting silver sister skip slice small snail soccer
  sock soda solution son song space spear spoke spoon spot square stair stamp star steak step
  stick sticker stone store straw strawberrie string stripe student subcommittee subset sum
  sunflower supplie sweet table tablespoon tadpole tank teacher team teaspoon teeth tenni term
  test text the them they throw ticket tile tin tire tissue toad token tomatoe ton tonne
  toothbrushe toothpick total touchdown towel toy trash tray treat tree triangle trip triple
  truck tub tube tulip turn turtle unique valid value vegetable vehicle vertex vertical vertice
  video volt vote wall water watermelon watt way wheel whisker white whole widget window wing
  woman women wooden word worker worm worth yellow yen
  """.split()
)
